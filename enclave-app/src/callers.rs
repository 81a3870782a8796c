//! Callers that are enclaves themselves: their documents, and what is encrypted to them.

use std::{fmt, time::Duration};

use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use thiserror::Error;
use tokio::time::Instant;
use transcode_confidential::{
    attestation::{
        Freshness, ImagePolicy, Pcrs, Purpose, Refusal, TrustRoot, UnverifiedDocument, UserData, caller_nonce,
    },
    ids::{Digest, LogId},
    time::Timestamp,
};

use crate::lock::{Mutex, PoisonError};

/// How long a challenge may be answered.
const CHALLENGE_TIME: Duration = Duration::from_secs(60);
/// How old a document may be when it is shown.
const DOCUMENT_AGE: Duration = Duration::from_secs(60);
/// How long a caller stays attested.
const ATTESTED_TIME: Duration = Duration::from_secs(3600);
/// Shortest RSA modulus that something is encrypted to, in bytes.
const LEAST_MODULUS: usize = 256;

/// A caller whose document was accepted: for this connection only.
pub struct AttestedCaller {
    pcrs: Pcrs,
    document: Digest,
    recipient: OaepPublicEncryptingKey,
    since: Instant,
}

/// Why a caller's document is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallerRefusal {
    /// No challenge of this connection is open: none was asked for, it was used, or it is too old.
    #[error("no challenge of this connection is open")]
    NoChallenge,
    /// The document itself.
    #[error(transparent)]
    Document(#[from] Refusal),
    /// It speaks of another log.
    #[error("the document is for the enclave of another log")]
    OtherLog,
    /// Nothing could be encrypted to its public key.
    #[error("the document has no RSA public key of at least 2048 bits")]
    PublicKey,
    /// No grant demands such a caller.
    #[error("no grant is for a caller of this image")]
    UnexpectedImage,
}

/// Nothing could be encrypted to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("nothing could be encrypted to the caller")]
pub struct SealError;

impl AttestedCaller {
    /// The registers of its document.
    pub const fn pcrs(&self) -> &Pcrs {
        &self.pcrs
    }

    /// SHA-256 of its document.
    pub const fn document(&self) -> Digest {
        self.document
    }

    /// Encrypts a secret to the public key in the caller's document: RSAES-OAEP, SHA-256, MGF1-SHA-256, empty label, as KMS
    /// does for us. At most 190 bytes under a key of 2048 bits.
    ///
    /// # Errors
    /// [`SealError`] for a longer secret.
    pub fn seal(&self, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = vec![0; self.recipient.ciphertext_size()];
        let length =
            self.recipient.encrypt(&OAEP_SHA256_MGF1SHA256, secret, &mut sealed, None).map_err(|_| SealError)?.len();
        sealed.truncate(length);
        Ok(sealed)
    }
}

impl fmt::Debug for AttestedCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttestedCaller").field("document", &self.document).finish_non_exhaustive()
    }
}

/// What one connection knows of its caller.
pub struct CallerSession {
    /// What only the two ends of this TLS session know. `None` where TLS gave nothing: then no caller is ever attested.
    exporter: Option<[u8; 32]>,
    challenge: Mutex<Option<(Digest, Instant)>>,
    attested: Mutex<Option<std::sync::Arc<AttestedCaller>>>,
}

impl CallerSession {
    /// Of a fresh connection.
    pub const fn new(exporter: Option<[u8; 32]>) -> Self {
        Self { exporter, challenge: Mutex::new(None), attested: Mutex::new(None) }
    }

    /// Sets the challenge that the next document must answer. One that was set before is void.
    pub fn challenge(&self, random: [u8; 32]) -> Digest {
        let challenge = Digest::new(random);
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some((challenge, Instant::now()));
        challenge
    }

    /// The caller, where it is attested and was so lately.
    pub fn attested(&self) -> Option<std::sync::Arc<AttestedCaller>> {
        let attested = self.attested.lock().unwrap_or_else(PoisonError::into_inner);
        attested.as_ref().filter(|caller| caller.since.elapsed() < ATTESTED_TIME).map(std::sync::Arc::clone)
    }

    /// Verifies a document against the open challenge, which is used up whatever comes of it. Nothing is granted by this:
    /// that takes [`CallerSession::accept`], when the acceptance is on the record.
    ///
    /// # Errors
    /// [`CallerRefusal`].
    pub fn verify(
        &self,
        document: &[u8],
        root: &TrustRoot,
        log_id: LogId,
        now: Timestamp,
    ) -> Result<AttestedCaller, CallerRefusal> {
        let open = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).take();
        let open = open.filter(|(_, since)| since.elapsed() < CHALLENGE_TIME);
        let (Some((challenge, _)), Some(exporter)) = (open, self.exporter) else {
            return Err(CallerRefusal::NoChallenge);
        };
        let mut freshness = Freshness::with_nonce(caller_nonce(&exporter, challenge.as_bytes()));
        freshness.max_age = DOCUMENT_AGE;
        // Which images are of use is the policy's to say: it is asked by whoever accepts this. Debug mode is refused here.
        let verified =
            UnverifiedDocument::parse(document)?.verify_live(root, now, freshness, &ImagePolicy::danger_any_image())?;
        match verified.require_purpose(Purpose::Caller)? {
            UserData::Caller { log_id: named } if named == log_id => {}
            _ => return Err(CallerRefusal::OtherLog),
        }
        let public_key = verified.public_key().ok_or(CallerRefusal::PublicKey)?;
        let key = PublicEncryptingKey::from_der(public_key).map_err(|_| CallerRefusal::PublicKey)?;
        if key.key_size_bytes() < LEAST_MODULUS {
            return Err(CallerRefusal::PublicKey);
        }
        let recipient = OaepPublicEncryptingKey::new(key).map_err(|_| CallerRefusal::PublicKey)?;
        let pcrs = verified.pcrs().clone();
        Ok(AttestedCaller { pcrs, document: Digest::of(document), recipient, since: Instant::now() })
    }

    /// From now on the caller is an attested one.
    pub fn accept(&self, caller: AttestedCaller) {
        *self.attested.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::sync::Arc::new(caller));
    }
}

impl fmt::Debug for CallerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerSession").field("attested", &self.attested()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};

    use super::*;

    #[test]
    fn what_is_sealed_to_a_caller_opens_under_its_own_key_only() {
        let key = || PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let (ours, other) = (key(), key());
        let recipient = OaepPublicEncryptingKey::new(ours.public_key()).unwrap();
        let (pcrs, document) = (Pcrs::default(), Digest::of(b"document"));
        let caller = AttestedCaller { pcrs, document, recipient, since: Instant::now() };
        let sealed = caller.seal(&[7; 32]).unwrap();
        assert_ne!(sealed, caller.seal(&[7; 32]).unwrap(), "each time anew");
        let open = |key: PrivateDecryptingKey| {
            let key = OaepPrivateDecryptingKey::new(key).unwrap();
            let mut plaintext = vec![0; key.min_output_size()];
            key.decrypt(&OAEP_SHA256_MGF1SHA256, &sealed, &mut plaintext, None).ok().map(|plaintext| plaintext.to_vec())
        };
        assert_eq!(open(ours), Some(vec![7; 32]));
        assert_eq!(open(other), None);
        assert_eq!(caller.seal(&[0; 191]), Err(SealError));
    }

    #[test]
    fn without_a_challenge_or_an_exporter_no_document_is_looked_at() {
        let verify = |session: &CallerSession| {
            session.verify(b"whatever", &TrustRoot::aws(), LogId::new([1; 16]), Timestamp(0)).unwrap_err()
        };
        let session = CallerSession::new(Some([1; 32]));
        assert!(matches!(verify(&session), CallerRefusal::NoChallenge));
        session.challenge([2; 32]);
        assert!(matches!(verify(&session), CallerRefusal::Document(_)));
        assert!(matches!(verify(&session), CallerRefusal::NoChallenge), "it is used up, whatever came of it");
        let without = CallerSession::new(None);
        without.challenge([2; 32]);
        assert!(matches!(verify(&without), CallerRefusal::NoChallenge));
        assert!(session.attested().is_none());
    }
}
