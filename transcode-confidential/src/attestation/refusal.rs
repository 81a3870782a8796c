//! Why a document is refused: exact for the person who verifies. On the wire one coarse refusal is enough.

mod certificate;
mod structure;

use std::{fmt, time::Duration};

use thiserror::Error;

use super::{
    pcr::{PcrIndex, PcrValue},
    purpose::Purpose,
};
use crate::{cbor::CborError, ids::Digest, time::Timestamp};
pub use certificate::{CertificateFault, Position};
pub use structure::{Level, StructureFault};

/// The one reason for which a document was refused, with what a person needs to act on it.
///
/// [`Refusal::reason`] names each reason in a stable form for scripts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The document is larger than any that is looked at.
    #[error("the document has {size} bytes; at most {max} are accepted", max = super::document::MAX_SIZE)]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
    },
    /// The bytes are not the strict subset of CBOR that a document is made of.
    #[error("{fault} at byte {offset} of the {level}")]
    Structure {
        /// Where `offset` counts from.
        level: Level,
        /// First byte of the offending item.
        offset: usize,
        /// What is wrong with it.
        fault: StructureFault,
    },
    /// Well-formed CBOR, but not the four items of a COSE_Sign1 (RFC 9052 section 4.2), untagged or with tag 18.
    #[error("not a COSE_Sign1: expected an array of protected header, unprotected header, payload and signature")]
    NotCoseSign1,
    /// The protected header is not exactly `a1013822`, that is ES384.
    #[error("the protected header is {found}, expected a1013822 (ES384)")]
    ProtectedHeader {
        /// Its first bytes, in hexadecimal.
        found: String,
    },
    /// The unprotected header, which no signature covers, is not the empty map.
    #[error("the unprotected header must be the empty map: no signature covers it")]
    UnprotectedHeader,
    /// The signature is not r and s of 48 bytes each.
    #[error("the signature has {length} bytes, expected 96 (r and s of P-384)")]
    SignatureLength {
        /// Its length, in bytes.
        length: usize,
    },
    /// A NitroTPM document: it speaks of an EC2 instance, under the same root.
    #[error("a NitroTPM document attests an EC2 instance, not an enclave")]
    NotAnEnclave,
    /// A payload field that enclave documents do not have.
    #[error("unknown payload field {name:?}")]
    UnknownField {
        /// Its key.
        name: String,
    },
    /// A required payload field is missing.
    #[error("the payload has no field {name:?}")]
    MissingField {
        /// Its key.
        name: &'static str,
    },
    /// A payload field of the wrong type.
    #[error("the payload field {name:?} has the wrong type")]
    FieldType {
        /// Its key.
        name: &'static str,
    },
    /// A payload field outside its range or longer than its limit.
    #[error("the payload field {name:?} is out of range")]
    FieldRange {
        /// Its key.
        name: &'static str,
    },
    /// The measurements are made with another hash than SHA-384.
    #[error("the digest is {found:?}, expected \"SHA384\"")]
    DigestAlgorithm {
        /// What the document names.
        found: String,
    },
    /// The first certificate of the bundle is not byte for byte the pinned root.
    #[error("the bundle starts with a certificate (SHA-256 {found}) that is not the pinned root")]
    UntrustedRoot {
        /// SHA-256 of what stands there.
        found: Digest,
    },
    /// Another number of certificates than root, regional, zonal, instance and leaf.
    #[error("{found} certificates, expected 5: root, regional, zonal, instance and leaf")]
    CertificateCount {
        /// Number of certificates, the leaf included.
        found: usize,
    },
    /// One of the five certificates lacks a property that it must have.
    #[error("the {position} certificate {fault}")]
    Certificate {
        /// Which one.
        position: Position,
        /// What is wrong with it.
        fault: CertificateFault,
    },
    /// A certificate's signature does not verify under its issuer's key.
    #[error("a certificate's signature does not verify under its issuer's key")]
    CertificateSignature,
    /// The five certificates do not form one path, in the given order, to the pinned root.
    #[error("the certificates form no path to the root: {detail}")]
    CertificatePath {
        /// What the path validation says.
        detail: String,
    },
    /// The document's signature does not verify under the leaf certificate's key.
    #[error("the document's signature does not verify under its leaf certificate")]
    Signature,
    /// A register without which no image is identified is not listed.
    #[error("{index} is not in the document, so its image is unknown")]
    MissingPcr {
        /// The register.
        index: PcrIndex,
    },
    /// An enclave in debug mode: its console and memory are open to the host.
    #[error("the enclave runs in debug mode ({index} is zero), where the host can read its console")]
    DebugMode {
        /// The first register that is zero.
        index: PcrIndex,
    },
    /// No accepted image has these measurements.
    #[error("{0}")]
    UnexpectedImage(Box<UnexpectedImage>),
    /// The image is known, but was accepted only until an earlier time.
    #[error("image {label:?} was accepted until {not_after}, it is {at}")]
    ImageExpired {
        /// Its label in the measurements.
        label: String,
        /// The end of its acceptance.
        not_after: Timestamp,
        /// The time of verification.
        at: Timestamp,
    },
    /// A nonce was sent, and the document has none.
    #[error("the document carries no nonce, but one was asked for")]
    NonceMissing,
    /// The document answers another nonce: it may be replayed.
    #[error("the document answers another nonce than the one that was sent: it may be a replay")]
    NonceMismatch,
    /// The document is older than accepted.
    #[error("the document is {} s old, at most {} s are accepted", age.as_secs(), max_age.as_secs())]
    TooOld {
        /// Its age at the time of verification.
        age: Duration,
        /// The greatest accepted age.
        max_age: Duration,
    },
    /// The document's time lies further in the future than clocks may differ.
    #[error("the document's time is {} ms ahead of ours, at most {} ms are accepted", ahead.as_millis(), tolerance.as_millis())]
    FromTheFuture {
        /// How far it is ahead.
        ahead: Duration,
        /// The greatest accepted difference.
        tolerance: Duration,
    },
    /// The document carries no `user_data`, so it states no purpose.
    #[error("the document states no purpose: it carries no user_data")]
    PurposeMissing,
    /// The document's `user_data` is not in this project's format.
    #[error("the document's user_data states no purpose that is known here: {0}")]
    PurposeUnreadable(CborError),
    /// The document was made for another purpose.
    #[error("the document was made for the purpose {found}, expected {expected}")]
    WrongPurpose {
        /// What the consumer asked for.
        expected: Purpose,
        /// What the document states.
        found: Purpose,
    },
}

impl Refusal {
    /// The reason's stable name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too-large",
            Self::Structure { fault, .. } => fault.reason(),
            Self::NotCoseSign1 => "not-cose-sign1",
            Self::ProtectedHeader { .. } => "protected-header",
            Self::UnprotectedHeader => "unprotected-header",
            Self::SignatureLength { .. } => "signature-length",
            Self::NotAnEnclave => "not-an-enclave",
            Self::UnknownField { .. } => "unknown-field",
            Self::MissingField { .. } => "missing-field",
            Self::FieldType { .. } => "field-type",
            Self::FieldRange { .. } => "field-range",
            Self::DigestAlgorithm { .. } => "digest-algorithm",
            Self::UntrustedRoot { .. } => "untrusted-root",
            Self::CertificateCount { .. } => "certificate-count",
            Self::Certificate { fault, .. } => fault.reason(),
            Self::CertificateSignature => "certificate-signature",
            Self::CertificatePath { .. } => "certificate-path",
            Self::Signature => "signature",
            Self::MissingPcr { .. } => "missing-pcr",
            Self::DebugMode { .. } => "debug-mode",
            Self::UnexpectedImage(_) => "unexpected-image",
            Self::ImageExpired { .. } => "image-expired",
            Self::NonceMissing => "nonce-missing",
            Self::NonceMismatch => "nonce-mismatch",
            Self::TooOld { .. } => "too-old",
            Self::FromTheFuture { .. } => "from-the-future",
            Self::PurposeMissing => "purpose-missing",
            Self::PurposeUnreadable(_) => "purpose-unreadable",
            Self::WrongPurpose { .. } => "wrong-purpose",
        }
    }

    /// Whether the bytes are no attestation document at all, whoever signed them and whatever was expected.
    pub const fn is_malformed(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::Structure { .. }
                | Self::NotCoseSign1
                | Self::ProtectedHeader { .. }
                | Self::UnprotectedHeader
                | Self::SignatureLength { .. }
                | Self::UnknownField { .. }
                | Self::MissingField { .. }
                | Self::FieldType { .. }
                | Self::FieldRange { .. }
                | Self::DigestAlgorithm { .. }
        )
    }
}

/// What an unexpected image measures, and the accepted image that it resembles most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnexpectedImage {
    /// PCR0 to PCR2 of the document.
    pub presented: [(PcrIndex, PcrValue); 3],
    /// Label of the accepted image with the fewest differing registers.
    pub closest: String,
    /// The registers in which that image differs from the document, or that the document does not list.
    pub differing: Vec<PcrIndex>,
}

impl fmt::Display for UnexpectedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the image is not an accepted one: it differs from {:?} in", self.closest)?;
        for index in &self.differing {
            write!(f, " {index}")?;
        }
        for (index, value) in &self.presented {
            write!(f, "; {index} is {value}")?;
        }
        Ok(())
    }
}
