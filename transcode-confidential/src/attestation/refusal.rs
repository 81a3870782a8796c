//! Why a document is refused: exact for the person who verifies. On the wire one coarse refusal is enough.

use std::{fmt, time::Duration};

use thiserror::Error;

use super::{
    pcr::{PcrIndex, PcrValue},
    purpose::Purpose,
};
use crate::{cbor::CborError, ids::Digest, time::Timestamp};

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

/// The two layers of a document that are CBOR each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The COSE_Sign1 around everything.
    Envelope,
    /// The signed map within it.
    Payload,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Envelope => "envelope",
            Self::Payload => "payload",
        })
    }
}

/// What can be wrong with the shape of the CBOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StructureFault {
    /// The input ends inside an item.
    #[error("the input ends inside an item")]
    Truncated,
    /// Bytes follow the last item.
    #[error("bytes follow the last item")]
    TrailingBytes,
    /// An indefinite length anywhere but on the payload map.
    #[error("an indefinite length")]
    IndefiniteLength,
    /// The indefinite payload map is not ended by a break.
    #[error("the indefinite map has no break")]
    MissingBreak,
    /// A map key that occurred before.
    #[error("a repeated map key")]
    DuplicateKey,
    /// A length or integer that has a shorter encoding.
    #[error("a length or integer not in its shortest form")]
    NotShortest,
    /// More nested arrays and maps than a document has.
    #[error("too deeply nested an item")]
    TooDeep,
    /// More items than a document can have.
    #[error("too many items")]
    TooManyItems,
    /// A tag, float, negative integer, simple value or reserved form, or a map key that is neither integer nor text.
    #[error("an item of a kind that documents do not use")]
    UnsupportedItem,
    /// A text string that is not UTF-8.
    #[error("a text that is not UTF-8")]
    NotUtf8,
}

impl StructureFault {
    /// The reason's stable name.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::TrailingBytes => "trailing-bytes",
            Self::IndefiniteLength => "indefinite-length",
            Self::MissingBreak => "missing-break",
            Self::DuplicateKey => "duplicate-key",
            Self::NotShortest => "not-shortest",
            Self::TooDeep => "too-deep",
            Self::TooManyItems => "too-many-items",
            Self::UnsupportedItem => "unsupported-item",
            Self::NotUtf8 => "not-utf8",
        }
    }
}

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
