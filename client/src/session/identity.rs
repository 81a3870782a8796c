use std::{fmt, sync::Arc};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use thiserror::Error;
use x509_cert::der::{
    Decode as _,
    asn1::{PrintableStringRef, Utf8StringRef},
    oid::db::rfc4519::COMMON_NAME,
};

use super::tls;

/// A client certificate and its private key: who this client says it is.
#[derive(Clone)]
pub struct Identity {
    certified_key: Arc<CertifiedKey>,
    name: Option<String>,
}

/// Why a file is no identity.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// No certificate in it, or one that cannot be read.
    #[error(
        "the identity holds no readable certificate: put the certificate and its private key, both in PEM, in one file"
    )]
    Certificate,
    /// No private key in it, or one that cannot be read.
    #[error(
        "the identity holds no readable private key: put the certificate and its private key, both in PEM, in one file"
    )]
    Key,
    /// The key is not the certificate's, or of a kind that TLS does not use.
    #[error("the identity's private key cannot be used with its certificate: {0}")]
    Mismatch(rustls::Error),
}

impl Identity {
    /// Reads one file with the certificate, further certificates up to the client CA if there are any, and the key.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, IdentityError> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| IdentityError::Certificate)?;
        let leaf = chain.first().ok_or(IdentityError::Certificate)?;
        let name = common_name(leaf);
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| IdentityError::Key)?;
        let certified_key = CertifiedKey::from_der(chain, key, &tls::provider()).map_err(IdentityError::Mismatch)?;
        Ok(Self { certified_key: Arc::new(certified_key), name })
    }

    /// The common name of the certificate, which the enclave takes as the principal.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified_key.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.name)
    }
}

/// The common name of a certificate's subject, where there is exactly one.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    let subject = certificate.tbs_certificate().subject();
    let mut names = subject.iter().filter(|attribute| attribute.oid == COMMON_NAME);
    let value = &names.next()?.value;
    let text = match value.decode_as::<Utf8StringRef<'_>>() {
        Ok(text) => text.as_str().to_owned(),
        Err(_) => value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str().to_owned(),
    };
    names.next().is_none().then_some(text)
}
