//! Why a key did not come, and what to do about it.

use std::fmt;

use thiserror::Error;
use transcode_confidential::attestation::{PcrIndex, PcrValue, UnverifiedDocument};

use super::{cms::EnvelopeError, credentials::CredentialsError, document::DocumentError, recipient::RecipientKeyError};

/// What KMS said, made fit to be shown: at most 300 characters, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said(String);

impl Said {
    pub(super) fn new(text: &str) -> Self {
        Self(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(300).collect())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("no reason given") } else { f.write_str(&self.0) }
    }
}

/// The image measurements that the refused document carried. They come from our own NSM and are for display.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Presented(Vec<(PcrIndex, PcrValue)>);

impl Presented {
    /// PCR0, PCR1, PCR2 and PCR8, as far as the document has them.
    pub(super) fn of(document: &[u8]) -> Self {
        let Ok(document) = UnverifiedDocument::parse(document) else { return Self::default() };
        let conditions_name = |index: &PcrIndex| PcrIndex::OF_IMAGE.contains(index) || *index == PcrIndex::IMAGE_SIGNER;
        let pcrs = document.unverified_claims().pcrs().iter();
        Self(pcrs.filter(|(index, _)| conditions_name(index)).map(|(index, value)| (index, *value)).collect())
    }

    /// Register and value, ascending.
    pub fn pcrs(&self) -> &[(PcrIndex, PcrValue)] {
        &self.0
    }
}

impl fmt::Display for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("unknown measurements");
        }
        let mut separator = "";
        for (index, value) in &self.0 {
            write!(f, "{separator}{index}={value}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// Why a key did not come.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KmsError {
    /// The reply has the plaintext in the clear: whatever answered does not honour `Recipient`, or is not KMS.
    #[error("the reply carries plaintext")]
    PlaintextReply,
    /// The reply is about another key than the measured one.
    #[error("the reply names another key: {returned}")]
    OtherKey {
        /// The key that the reply names.
        returned: Said,
    },
    /// The reply has no `CiphertextForRecipient`.
    #[error("the reply is not sealed to our key")]
    NotSealed,
    /// The reply lacks a field, or the field has an impossible length.
    #[error("the reply lacks a usable {field}")]
    Incomplete {
        /// Name of the field on the wire.
        field: &'static str,
    },
    /// `CiphertextForRecipient` cannot be opened, or holds something of the wrong length.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// What arrived is not a KMS reply.
    #[error("what arrived is not a KMS reply")]
    MalformedReply,

    /// The key policy does not allow the call as attested.
    #[error("the key policy refuses what was attested ({presented}): {said}")]
    ConditionNotMet {
        /// What KMS said.
        said: Said,
        /// What the document carried.
        presented: Presented,
    },
    /// The caller's role may not make this call at all.
    #[error("access denied: {said}")]
    AccessDenied {
        /// What KMS said.
        said: Said,
    },
    /// KMS does not accept the attestation document itself.
    #[error("the attestation document was refused: {said}")]
    DocumentRefused {
        /// What KMS said.
        said: Said,
    },
    /// The wrapped key was altered, belongs to another context, or was wrapped under another KMS key.
    #[error("the wrapped key does not belong to this key and context")]
    WrappedKeyRefused,
    /// The KMS key exists and cannot be used: disabled, pending deletion, pending import.
    #[error("the KMS key cannot be used: {said}")]
    KeyUnusable {
        /// What KMS said.
        said: Said,
    },
    /// There is no such KMS key.
    #[error("the KMS key does not exist: {said}")]
    KeyNotFound {
        /// What KMS said.
        said: Said,
    },
    /// The endpoint belongs to another region than the key.
    #[error("the endpoint is in another region than the key: {said}")]
    WrongRegion {
        /// What KMS said.
        said: Said,
    },
    /// KMS refused for a reason that has no variant of its own.
    #[error("KMS refused with {code}: {said}")]
    Rejected {
        /// The error's name on the wire.
        code: Said,
        /// What KMS said.
        said: Said,
    },

    /// Too many requests.
    #[error("KMS throttles requests")]
    Throttled,
    /// The role's credentials have expired, and so had the ones fetched anew.
    #[error("the role's credentials have expired")]
    CredentialsExpired,
    /// KMS does not know the credentials, or the signature does not match them.
    #[error("KMS refuses the role's credentials: {said}")]
    CredentialsRefused {
        /// What KMS said.
        said: Said,
    },
    /// There are no credentials to sign with.
    #[error(transparent)]
    NoCredentials(#[from] CredentialsError),
    /// KMS finds the request too old or too new.
    #[error("the enclave's clock and KMS's disagree: {said}")]
    ClockSkew {
        /// What KMS said.
        said: Said,
    },
    /// No connection to KMS could be had, or it broke.
    #[error("KMS cannot be reached: {reason}")]
    Unreachable {
        /// Where it failed.
        reason: Said,
    },
    /// The parent's allow-list lacks the KMS endpoint.
    #[error("the parent refuses to connect to {host}")]
    EgressRefused {
        /// Host and port.
        host: Said,
    },
    /// What answered cannot prove to be the KMS endpoint.
    #[error("what answered is not the KMS endpoint: {reason}")]
    UntrustedServer {
        /// What TLS found.
        reason: Said,
    },
    /// No answer within the total time.
    #[error("KMS did not answer in time")]
    TimedOut,
    /// KMS has a fault of its own.
    #[error("KMS has a fault: {code}")]
    ServiceFault {
        /// The error's name on the wire.
        code: Said,
    },

    /// The NSM gave no document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// No key to seal the reply to.
    #[error(transparent)]
    RecipientKey(#[from] RecipientKeyError),
    /// A wrapped key, or a number of bytes, that KMS could not have made or would not make.
    #[error("{what} has an impossible length")]
    Length {
        /// The argument.
        what: &'static str,
    },
}

impl KmsError {
    /// A stable name of the cause, for logs, status and audit events.
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::PlaintextReply => "plaintext-reply",
            Self::OtherKey { .. } => "other-key",
            Self::NotSealed => "not-sealed",
            Self::Incomplete { .. } => "incomplete-reply",
            Self::Envelope(_) => "envelope",
            Self::MalformedReply => "malformed-reply",
            Self::ConditionNotMet { .. } => "attestation-condition",
            Self::AccessDenied { .. } => "access-denied",
            Self::DocumentRefused { .. } => "document-refused",
            Self::WrappedKeyRefused => "wrapped-key-refused",
            Self::KeyUnusable { .. } => "key-unusable",
            Self::KeyNotFound { .. } => "key-not-found",
            Self::WrongRegion { .. } => "wrong-region",
            Self::Rejected { .. } => "rejected",
            Self::Throttled => "throttled",
            Self::CredentialsExpired => "credentials-expired",
            Self::CredentialsRefused { .. } => "credentials-refused",
            Self::NoCredentials(_) => "no-credentials",
            Self::ClockSkew { .. } => "clock-skew",
            Self::Unreachable { .. } => "unreachable",
            Self::EgressRefused { .. } => "egress-refused",
            Self::UntrustedServer { .. } => "untrusted-server",
            Self::TimedOut => "timed-out",
            Self::ServiceFault { .. } => "service-fault",
            Self::Document(_) => "no-document",
            Self::RecipientKey(_) => "no-recipient-key",
            Self::Length { .. } => "impossible-length",
        }
    }

    /// What the operator does next.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::PlaintextReply | Self::NotSealed => {
                "Do not go on: the endpoint ignores Recipient. Check that the region's KMS supports Nitro Enclaves and that nothing stands in its place."
            }
            Self::OtherKey { .. } | Self::Incomplete { .. } | Self::Envelope(_) | Self::MalformedReply => {
                "Do not go on: the reply is not one that KMS sends. Check what the parent's egress connects to."
            }
            Self::ConditionNotMet { .. } => {
                "Compare these PCRs with the conditions of the key policy; after an upgrade of the image, generate the policy anew. All zeros mean debug mode."
            }
            Self::AccessDenied { .. } => {
                "Allow the call in the role's IAM policy; check permission boundaries and service control policies. GenerateRandom names no key: it belongs in the IAM policy."
            }
            Self::DocumentRefused { .. } => {
                "Check the enclave's clock and the age of the document; a debug enclave's document is not accepted."
            }
            Self::WrappedKeyRefused => {
                "The stored wrapped key is not the one that belongs here: verify the log, and restore the store from a copy."
            }
            Self::KeyUnusable { .. } => "Enable the KMS key, or cancel its deletion.",
            Self::KeyNotFound { .. } => "Check the key ARN in the measured configuration.",
            Self::WrongRegion { .. } => {
                "Check the region in the key ARN, and that the egress connects to that region's endpoint."
            }
            Self::Rejected { .. } => "See what KMS said, and the request in CloudTrail.",
            Self::Throttled => "Try again later; ask for a higher request quota if it stays.",
            Self::CredentialsExpired | Self::NoCredentials(_) => {
                "Check that the instance has its role and that the parent proxy can read credentials from instance metadata."
            }
            Self::CredentialsRefused { .. } => {
                "Check that the parent proxy hands out the credentials of the instance's role."
            }
            Self::ClockSkew { .. } => "Check the time that the NSM reports; the host's clock plays no part.",
            Self::Unreachable { .. } | Self::TimedOut => {
                "Check that the parent proxy runs and that the host reaches the region's KMS endpoint (route, VPC endpoint, security group, DNS)."
            }
            Self::EgressRefused { .. } => "Add the region's KMS endpoint to the parent proxy's allow-list.",
            Self::UntrustedServer { .. } => {
                "Check for a TLS-inspecting proxy on the way to KMS: only Amazon's own certificate authorities are accepted. Check the enclave's clock."
            }
            Self::ServiceFault { .. } => "Try again later; see the AWS health dashboard.",
            Self::Document(_) => "Check /dev/nsm inside the enclave; without it nothing can be attested.",
            Self::RecipientKey(_) => "Restart the enclave: its random source or memory is exhausted.",
            Self::Length { .. } => "The caller of this function is at fault.",
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn retryable(&self) -> bool {
        matches!(
            self,
            Self::Throttled
                | Self::CredentialsExpired
                | Self::NoCredentials(_)
                | Self::Unreachable { .. }
                | Self::TimedOut
                | Self::ServiceFault { .. }
                | Self::Document(_)
        )
    }

    /// Whether KMS itself would never have replied so: a breach of the protocol, to be recorded as a policy violation.
    pub const fn is_bad_reply(&self) -> bool {
        matches!(
            self,
            Self::PlaintextReply
                | Self::OtherKey { .. }
                | Self::NotSealed
                | Self::Incomplete { .. }
                | Self::Envelope(_)
                | Self::MalformedReply
                | Self::UntrustedServer { .. }
        )
    }

    /// Whether KMS refused what was attested, to be recorded as a failed attestation.
    pub const fn is_attestation_refused(&self) -> bool {
        matches!(self, Self::ConditionNotMet { .. } | Self::DocumentRefused { .. })
    }
}
