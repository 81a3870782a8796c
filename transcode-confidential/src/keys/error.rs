use thiserror::Error;

use super::AttestorError;
use crate::{
    audit::ChainError,
    entropy::EntropyError,
    ids::{IdError, KeyVersion, Sequence},
};

/// Why a request concerning a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a key id.
    #[error("not a key id: {0}")]
    Id(#[from] IdError),
    /// There is no such key.
    #[error("there is no such key")]
    Unknown,
    /// There is, or was, a key of this id.
    #[error("the key id was used before")]
    Exists,
    /// The key was revoked or destroyed.
    #[error("the key was revoked")]
    Revoked,
    /// The key is suspended.
    #[error("the key is suspended")]
    Suspended,
    /// The key is not suspended.
    #[error("the key is not suspended")]
    NotSuspended,
    /// The key has no such version.
    #[error("the key has no version {0}")]
    NoSuchVersion(KeyVersion),
    /// The active version cannot be destroyed by itself.
    #[error("version {0} is active; rotate the key first, or destroy the whole of it")]
    ActiveVersion(KeyVersion),
    /// Messages of this version are not decrypted any more.
    #[error("version {version} no longer decrypts: the oldest that does is {minimum}")]
    BelowMinimum {
        /// The version of the message.
        version: KeyVersion,
        /// The oldest version that decrypts.
        minimum: KeyVersion,
    },
    /// It is so already.
    #[error("versions from {0} on decrypt already")]
    Unchanged(KeyVersion),
    /// Another version is active than the caller expected.
    #[error("version {active} is active, not {expected}")]
    VersionMismatch {
        /// What the caller expected.
        expected: KeyVersion,
        /// What is.
        active: KeyVersion,
    },
    /// The active version has reached its limit; ask again when it was rotated.
    #[error("the active version has reached its limit and must be rotated")]
    RotationDue,
    /// A media key is one of a period, and asked for as such ([`super::KeyRequest::MediaKey`]).
    #[error("a media key is asked for by its content and period")]
    NoPeriod,
    /// The media keys of the key are of more scattered periods than one key keeps apart.
    #[error("the key has media keys of too many scattered periods; use another key for further content")]
    TooManyPeriods,
    /// A limit that does not limit.
    #[error("rotation policy: {0}")]
    Policy(&'static str),
    /// No further version number.
    #[error("the key has no further version numbers")]
    VersionsExhausted,
    /// No key material could be made.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The attestation that the policy requires failed.
    #[error(transparent)]
    Attestation(#[from] AttestorError),
    /// The event could not be recorded.
    #[error("the event could not be recorded: {0}")]
    Audit(#[from] ChainError),
}

/// An event that cannot follow on the events before it: no genuine enclave writes such a log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("event {sequence} contradicts the events before it: {reason}")]
pub struct FoldError {
    /// The event.
    pub sequence: Sequence,
    /// What it contradicts.
    pub reason: &'static str,
}
