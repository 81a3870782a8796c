//! A restore document: the policy authority names the copy of a log that is to be taken up again.
//!
//! A tagged COSE_Sign1 (RFC 9052 section 4.2) as a signed policy, by the same key, with external data
//! `transcode-confidential/restore/v1`, so that neither is ever taken for the other. Its payload is deterministic CBOR:
//!
//! ```text
//! {0: 1, 1: deployment (text), 2: log id (16 bytes), 3: number of events (uint), 4: root (32 bytes),
//!  5: greatest epoch that is known to be lost (uint, 0 for none), 6: issued at (ms since the Unix epoch), 7: reason (text)}
//! ```

use super::policy::{DOCUMENT_LIMIT, PolicyError, cose};
use crate::{
    cbor::{CborError, Reader, Writer},
    ids::{Digest, Epoch, LogId, RootHash},
    signature::{PublicKey, SigningKey},
    time::Timestamp,
};

const EXTERNAL_AAD: &[u8] = b"transcode-confidential/restore/v1";
const DEPLOYMENT_LIMIT: usize = 128;
const REASON_LIMIT: usize = 1024;

/// Which copy is to be taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// The deployment; another one refuses it.
    pub deployment: String,
    /// The log.
    pub log_id: LogId,
    /// Number of events of the copy.
    pub size: u64,
    /// Its root.
    pub root: RootHash,
    /// Greatest epoch that is known to be lost; 0 where none is.
    pub lost_epoch: Epoch,
    /// When the authority issued it, by its own clock.
    pub issued_at: Timestamp,
    /// Why, for people.
    pub reason: String,
}

/// A restore document whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRestore {
    restore: Restore,
    document: Vec<u8>,
}

impl SignedRestore {
    /// Signs.
    pub fn sign(restore: Restore, authority: &SigningKey) -> Self {
        let document = cose::sign(EXTERNAL_AAD, &restore.encode(), authority);
        Self { restore, document }
    }

    /// Verifies a document. The signature is checked before the payload is read.
    ///
    /// # Errors
    /// [`PolicyError::Encoding`], [`PolicyError::TooLong`], [`PolicyError::Signature`].
    pub fn verify(document: &[u8], authority: &PublicKey) -> Result<Self, PolicyError> {
        let payload = cose::open(EXTERNAL_AAD, document, authority)?;
        Ok(Self { restore: Restore::decode(payload)?, document: document.to_vec() })
    }

    /// Reads what a document says, without verifying anything.
    ///
    /// # Errors
    /// [`PolicyError::Encoding`], [`PolicyError::TooLong`].
    pub fn claimed(document: &[u8]) -> Result<Restore, PolicyError> {
        if document.len() > DOCUMENT_LIMIT {
            return Err(PolicyError::TooLong(document.len()));
        }
        Ok(Restore::decode(cose::payload(document)?)?)
    }

    /// What it says.
    pub const fn restore(&self) -> &Restore {
        &self.restore
    }

    /// The document's bytes.
    pub fn document(&self) -> &[u8] {
        &self.document
    }

    /// SHA-256 of the document.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.document)
    }
}

impl Restore {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(8).uint(0).uint(1).uint(1).text(&self.deployment).uint(2).bytes(self.log_id.as_bytes());
        out.uint(3).uint(self.size).uint(4).bytes(self.root.as_bytes()).uint(5).uint(self.lost_epoch.0);
        out.uint(6).uint(self.issued_at.0).uint(7).text(&self.reason);
        out.into_bytes()
    }

    fn decode(payload: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(payload);
        let mut map = reader.int_map(8)?;
        if map.required(0)?.uint()? != 1 {
            return Err(CborError::Range);
        }
        let restore = Self {
            deployment: map.required(1)?.text(DEPLOYMENT_LIMIT)?.to_owned(),
            log_id: LogId::new(map.required(2)?.array_of()?),
            size: map.required(3)?.uint()?,
            root: RootHash::new(map.required(4)?.array_of()?),
            lost_epoch: Epoch(map.required(5)?.number::<u32>()?.into()),
            issued_at: Timestamp(map.required(6)?.uint()?),
            reason: map.required(7)?.text(REASON_LIMIT)?.to_owned(),
        };
        map.end()?;
        reader.end()?;
        Ok(restore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{protocol::policy::SignedPolicy, secret::KeyMaterial};

    #[test]
    fn a_restore_document_verifies_no_changed_byte_of_it_does_and_it_is_no_policy() {
        let key = SigningKey::from_seed(&KeyMaterial::from_bytes([8; 32])).unwrap();
        let restore = Restore {
            deployment: "studio".into(),
            log_id: LogId::new([1; 16]),
            size: 77,
            root: RootHash::new([2; 32]),
            lost_epoch: Epoch(3),
            issued_at: Timestamp(5),
            reason: "the disk of host 4 died".into(),
        };
        let signed = SignedRestore::sign(restore.clone(), &key);
        assert_eq!(SignedRestore::verify(signed.document(), &key.public_key()).as_ref(), Ok(&signed));
        assert_eq!(SignedRestore::claimed(signed.document()), Ok(restore));
        for at in 0..signed.document().len() {
            let mut changed = signed.document().to_vec();
            changed[at] ^= 1;
            assert!(SignedRestore::verify(&changed, &key.public_key()).is_err(), "byte {at}");
        }
        assert_eq!(SignedPolicy::verify(signed.document(), &key.public_key()), Err(PolicyError::Signature));
    }
}
