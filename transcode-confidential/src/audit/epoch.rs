use super::EpochOpened;
use crate::{
    ids::{Digest, Epoch, LeafHash, LogId, Sequence},
    signature::{Domain, PublicKey, Signature, SignatureError, SigningKey},
};

/// What the log key signs when an epoch opens: so whoever knows the log key can follow every epoch key without reading an
/// attestation document, and no enclave that cannot unwrap the log key can open an epoch.
///
/// Signed bytes: `0xFF "transcode-confidential/epoch/v1" 0x00`, then `log id (16) || epoch (8) || first sequence (8) ||
/// previous head (32) || epoch key (32) || SHA-256 of the attestation document (32)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStatement {
    /// The log.
    pub log_id: LogId,
    /// Number of the epoch.
    pub epoch: Epoch,
    /// Position of its first event.
    pub first: Sequence,
    /// Leaf hash of the event before.
    pub previous: LeafHash,
    /// The key that seals this epoch.
    pub epoch_key: PublicKey,
    /// SHA-256 of the attestation document over that key.
    pub document: Digest,
}

impl EpochStatement {
    /// The statement that an `EnclaveCreated` event at this place makes.
    pub const fn of(opened: &EpochOpened, epoch: Epoch, first: Sequence, previous: LeafHash) -> Self {
        Self { log_id: opened.log_id, epoch, first, previous, epoch_key: opened.epoch_key, document: opened.document }
    }

    /// Signs it with the log key.
    pub fn sign(&self, log_key: &SigningKey) -> Signature {
        log_key.sign(Domain::Epoch, &self.bytes())
    }

    /// Verifies the log key's signature.
    ///
    /// # Errors
    /// [`SignatureError`] for every way to fail.
    pub fn verify(&self, log_key: &PublicKey, signature: &Signature) -> Result<(), SignatureError> {
        log_key.verify(Domain::Epoch, &self.bytes(), signature)
    }

    /// What PCR17 is extended with: SHA-384 is the NSM's business, this is its input.
    pub fn measured_bytes(epoch: Epoch, previous: LeafHash, epoch_key: &PublicKey) -> Vec<u8> {
        [&epoch.0.to_be_bytes()[..], previous.as_bytes(), epoch_key.as_bytes()].concat()
    }

    fn bytes(&self) -> Vec<u8> {
        [
            self.log_id.as_bytes(),
            &self.epoch.0.to_be_bytes()[..],
            &self.first.0.to_be_bytes(),
            self.previous.as_bytes(),
            self.epoch_key.as_bytes(),
            self.document.as_bytes(),
        ]
        .concat()
    }
}
