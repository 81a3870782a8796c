use thiserror::Error;

use crate::ids::{Digest, KeyId, KeyVersion};

/// Whoever can show, before a rotation takes effect, that this is still the enclave it should be.
pub trait Attestor: Send {
    /// Attests for the rotation of `key` to `next`.
    ///
    /// # Errors
    /// [`AttestorError`]; the rotation does not take place then.
    fn attest(&mut self, key: &KeyId, next: KeyVersion) -> Result<Attested, AttestorError>;
}

/// A document that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attested {
    /// SHA-256 of the document.
    pub document: Digest,
}

/// Why no attestation could be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("attestation failed: {reason}")]
pub struct AttestorError {
    /// The listed reason of a refusal, or what stood in the way.
    pub reason: String,
}
