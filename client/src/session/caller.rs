//! Callers that are enclaves themselves.

use std::{fmt, future::Future, pin::Pin};

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey},
};
use thiserror::Error;
use zeroize::Zeroizing;

/// Makes the attestation documents by which this caller, an enclave of its own, proves what it is.
///
/// The document that [`CallerAttestor::attest`] gives must carry the given `nonce` and `user_data`, and as `public_key` an RSA
/// key of the caller, at least 2048 bits, SubjectPublicKeyInfo DER: data keys and media keys for this caller are encrypted to
/// it, and are taken in no other form. [`CallerKey`] is such a key.
pub trait CallerAttestor: Send + Sync {
    /// A document with this nonce and user data.
    fn attest<'a>(&'a self, nonce: &'a [u8; 32], user_data: &'a [u8]) -> CallerDocument<'a>;

    /// Opens what was encrypted to the public key of the document: RSAES-OAEP with SHA-256, MGF1-SHA-256 and the empty label.
    /// `None` where it does not open.
    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
}

/// The RSA-2048 key of a caller, made where it is used and stored nowhere.
pub struct CallerKey {
    private: OaepPrivateDecryptingKey,
    public_key: Vec<u8>,
}

impl CallerKey {
    /// Makes a key. Takes some 50 to 200 ms of one core.
    ///
    /// # Errors
    /// [`CallerAttestorError`] where none can be made.
    pub fn generate() -> Result<Self, CallerAttestorError> {
        let failed = |_| CallerAttestorError("no RSA key can be made".into());
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(failed)?;
        let public_key: PublicKeyX509Der<'_> = private.public_key().as_der().map_err(failed)?;
        let public_key = public_key.as_ref().to_vec();
        let private = OaepPrivateDecryptingKey::new(private).map_err(failed)?;
        Ok(Self { private, public_key })
    }

    /// SubjectPublicKeyInfo, DER: the `public_key` of the document.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// As [`CallerAttestor::open`].
    pub fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut plaintext = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let length = self.private.decrypt(&OAEP_SHA256_MGF1SHA256, sealed, &mut plaintext, None).ok()?.len();
        plaintext.truncate(length);
        Some(plaintext)
    }
}

impl fmt::Debug for CallerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerKey").finish_non_exhaustive()
    }
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
