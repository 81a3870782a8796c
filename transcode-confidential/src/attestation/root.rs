//! The root that a verifier trusts. It comes with the verifier, never from the document.

use std::fmt;

use rustls_pki_types::{CertificateDer, TrustAnchor, pem::PemObject};
use thiserror::Error;

use super::{
    certificate::Certificate,
    refusal::{CertificateFault, Position},
};
use crate::ids::Digest;

/// AWS's root for Nitro Enclaves, `CN=aws.nitro-enclaves`, valid 2019 to 2049.
const AWS_ROOT: &[u8] = include_bytes!("aws-root.der");

/// The certificate that the first of a document's bundle must equal byte for byte.
///
/// It has every property that a root must have; its validity is held against the time of each verification.
#[derive(Clone)]
pub struct TrustRoot {
    der: Vec<u8>,
    certificate: Certificate,
    anchor: TrustAnchor<'static>,
}

/// Why some bytes cannot serve as a root.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrustRootError {
    /// Not exactly one certificate in PEM.
    #[error("expected one certificate in PEM")]
    Pem,
    /// The certificate lacks a property of a root.
    #[error("the root certificate {0}")]
    Certificate(#[from] CertificateFault),
}

impl TrustRoot {
    /// AWS's root, compiled in: what every verifier outside of tests uses.
    pub fn aws() -> Self {
        match Self::from_der(AWS_ROOT) {
            Ok(root) => root,
            Err(_) => unreachable!("a test reads the certificate that is compiled in"),
        }
    }

    /// A root of one's own, in DER. Whoever holds its key can attest anything to this verifier.
    ///
    /// # Errors
    /// [`TrustRootError::Certificate`], for what a root must have and this certificate has not.
    pub fn from_der(der: &[u8]) -> Result<Self, TrustRootError> {
        let certificate = Certificate::read(der)?;
        certificate.check_place(Position::Root, &certificate)?;
        let borrowed = CertificateDer::from(der);
        let anchor = webpki::anchor_from_trusted_cert(&borrowed).map_err(|_| CertificateFault::Malformed)?;
        Ok(Self { der: der.to_vec(), certificate, anchor: anchor.to_owned() })
    }

    /// A root of one's own, as one certificate in PEM.
    ///
    /// # Errors
    /// [`TrustRootError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustRootError> {
        let mut certificates = CertificateDer::pem_slice_iter(pem);
        match (certificates.next(), certificates.next()) {
            (Some(Ok(der)), None) => Self::from_der(&der),
            _ => Err(TrustRootError::Pem),
        }
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the certificate in DER, as AWS publishes it.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.der)
    }

    /// Whether this is AWS's root.
    pub fn is_aws(&self) -> bool {
        self.der == AWS_ROOT
    }

    pub(super) const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(super) const fn anchor(&self) -> &TrustAnchor<'static> {
        &self.anchor
    }
}

impl PartialEq for TrustRoot {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for TrustRoot {}

impl fmt::Debug for TrustRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustRoot({})", self.fingerprint())
    }
}
