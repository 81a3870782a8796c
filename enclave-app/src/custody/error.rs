use thiserror::Error;
use transcode_confidential::{keys::KeyError, message::MessageError};

use crate::{attestor::AttestFailure, kms::KmsError, ledger::LedgerError};

/// Why a key was not made, changed or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CustodyError {
    /// The key's own state stands against it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The same key is being made or rotated right now.
    #[error("the key is being made or rotated right now")]
    InProgress,
    /// The event cannot be made durable, so nothing is released.
    #[error("the audit record cannot be kept now")]
    AuditUnavailable,
    /// KMS did not give the key.
    #[error(transparent)]
    Kms(KmsError),
    /// The key was made, and cannot be unwrapped any more.
    #[error("the wrapped key record is missing or by another KMS key")]
    RecordMissing,
    /// KMS unwrapped another key than was wrapped.
    #[error("KMS unwrapped another key than was wrapped")]
    OtherKey,
    /// The attestation that the policy requires failed.
    #[error(transparent)]
    Attestation(#[from] AttestFailure),
    /// The clock was found to have drifted; nothing is granted until it is anchored again.
    #[error("the clock has drifted")]
    ClockDrifted,
    /// The message does not verify or is malformed.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl From<LedgerError> for CustodyError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Refused(error) => Self::Key(error),
            _ => Self::AuditUnavailable,
        }
    }
}
