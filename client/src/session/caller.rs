//! Callers that are enclaves themselves.

use std::{fmt, future::Future, pin::Pin};

use thiserror::Error;

/// Makes the attestation documents by which this caller, an enclave of its own, proves what it is.
///
/// The document that [`CallerAttestor::attest`] gives must carry the given `nonce` and `user_data`, and as `public_key` an RSA
/// key of the caller, at least 2048 bits, SubjectPublicKeyInfo DER: what the caller is granted on these grounds is encrypted to it.
pub trait CallerAttestor: Send + Sync {
    /// A document with this nonce and user data.
    fn attest<'a>(&'a self, nonce: &'a [u8; 32], user_data: &'a [u8]) -> CallerDocument<'a>;
}

/// A document that is being made.
pub type CallerDocument<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, CallerAttestorError>> + Send + 'a>>;

/// No document could be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this caller cannot attest itself: {0}")]
pub struct CallerAttestorError(pub String);

impl fmt::Debug for dyn CallerAttestor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerAttestor")
    }
}
