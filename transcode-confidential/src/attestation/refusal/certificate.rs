use std::fmt;

use thiserror::Error;

use crate::time::Timestamp;

/// Place of a certificate in the path, which is also its place in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// The pinned root, first of the bundle.
    Root,
    /// The region's certificate.
    Regional,
    /// The availability zone's certificate.
    Zonal,
    /// The parent instance's certificate.
    Instance,
    /// The enclave's certificate, whose key signs the document.
    Leaf,
}

impl Position {
    /// All five, from the root down.
    pub const ALL: [Self; 5] = [Self::Root, Self::Regional, Self::Zonal, Self::Instance, Self::Leaf];
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Regional => "regional",
            Self::Zonal => "zonal",
            Self::Instance => "instance",
            Self::Leaf => "leaf",
        })
    }
}

/// What can be wrong with one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CertificateFault {
    /// Not a DER certificate.
    #[error("is not a certificate in DER")]
    Malformed,
    /// Not X.509 version 3, or with unique identifiers of version 2.
    #[error("is not X.509 version 3")]
    Version,
    /// Signed, or said to be signed, with something other than ecdsa-with-SHA384.
    #[error("is not signed with ecdsa-with-SHA384")]
    SignatureAlgorithm,
    /// The key is not an uncompressed point on the named curve P-384.
    #[error("has a key that is not an uncompressed P-384 point")]
    Key,
    /// The issuer is not the certificate above.
    #[error("is not issued by the certificate above it")]
    Issuer,
    /// Not valid yet at the time of verification.
    #[error("is valid from {not_before}, it is {at}")]
    NotYetValid {
        /// Start of its validity.
        not_before: Timestamp,
        /// The time of verification.
        at: Timestamp,
    },
    /// No longer valid at the time of verification.
    #[error("was valid until {not_after}, it is {at}")]
    Expired {
        /// End of its validity.
        not_after: Timestamp,
        /// The time of verification.
        at: Timestamp,
    },
    /// An issuing certificate that is not marked, critically, as an authority; or a leaf that is.
    #[error("has the wrong basic constraints for its place")]
    BasicConstraints,
    /// The path length does not fit the place in the path.
    #[error("has the wrong path length for its place")]
    PathLength,
    /// The key usage is missing or wrong for the place in the path.
    #[error("has the wrong key usage for its place")]
    KeyUsage,
    /// An extension that is repeated, critical and not understood, or out of place here.
    #[error("has an extension that is repeated, or that does not belong there ({oid})")]
    Extension {
        /// Its object identifier.
        oid: String,
    },
}

impl CertificateFault {
    /// The reason's stable name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "certificate-malformed",
            Self::Version => "certificate-version",
            Self::SignatureAlgorithm => "certificate-signature-algorithm",
            Self::Key => "certificate-key",
            Self::Issuer => "certificate-issuer",
            Self::NotYetValid { .. } => "certificate-not-yet-valid",
            Self::Expired { .. } => "certificate-expired",
            Self::BasicConstraints => "certificate-basic-constraints",
            Self::PathLength => "certificate-path-length",
            Self::KeyUsage => "certificate-key-usage",
            Self::Extension { .. } => "certificate-extension",
        }
    }
}
