use thiserror::Error;
use transcode_confidential::{
    ids::KeyId,
    message::MessageError,
    protocol::api::{ApiError, ErrorCode},
};

use crate::{log_memory::LogError, session::SessionError};

/// Why a call did not do what it was asked to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no attested connection.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The enclave's log, or a receipt for it, is not believed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Not granted, or no such key.
    #[error("denied: {}", said(.0))]
    Denied(ApiError),
    /// The key, or its version, was revoked or suspended.
    #[error("revoked: {}", said(.0))]
    Revoked(ApiError),
    /// The key id is taken, or another version is active than the expected one.
    #[error("conflict: {}", said(.0))]
    Conflict(ApiError),
    /// The enclave could not read the request, or it is too large.
    #[error("refused as malformed: {}", said(.0))]
    Malformed(ApiError),
    /// The content does not verify.
    #[error("the content does not verify: {}", said(.0))]
    Unverified(ApiError),
    /// The enclave cannot serve this now.
    #[error("unavailable: {0}")]
    Unavailable(ApiError),
    /// The content in the reply is not complete, or not what was asked for.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// What went wrong with content on its way.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ContentError {
    /// The reply ends without its end mark. What came of it must not be used.
    #[error(
        "the content ends early: the enclave stopped, or somebody cut the connection; what came must not be used ({0})"
    )]
    EndedEarly(String),
    /// No end mark could ever come: the reply says neither its length nor that it is chunked.
    #[error("the reply has no end mark, so nobody could tell whether it is complete")]
    Unbounded,
    /// Nothing moved for too long.
    #[error("the content stalled: nothing moved for {0} s")]
    Stalled(u64),
    /// Another key than the expected one was used.
    #[error("the message is under key {found}, expected {expected}")]
    OtherKey {
        /// The key that was asked for.
        expected: KeyId,
        /// The key that the reply names.
        found: KeyId,
    },
    /// The message's context lacks a pair that was asked for.
    #[error("the message's context does not have {key}={value}")]
    OtherContext {
        /// The pair's key.
        key: String,
        /// Its value.
        value: String,
    },
    /// The input does not begin as a message that is read here.
    #[error("no message that can be read: {0}")]
    Header(MessageError),
    /// A message could not be written, or one that was read does not verify; nothing of the part that does not is released.
    #[error("the message does not verify, or cannot be written: {0}")]
    Message(#[from] MessageError),
    /// It was told to stop.
    #[error("the work was stopped")]
    Stopped,
    /// The input could not be read.
    #[error("the input cannot be read: {0}")]
    Input(std::io::Error),
    /// The output could not be written.
    #[error("the output cannot be written: {0}")]
    Output(std::io::Error),
}

/// What kind of failure it is, for exit codes and for whoever decides what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Input, local files or the request are not as they should be.
    Malformed,
    /// Something that had to be proven was not.
    Verification,
    /// The enclave refuses.
    Denied,
    /// It may work later.
    Unavailable,
}

/// What the enclave says to people, where the kind of the error says the rest.
fn said(answer: &ApiError) -> String {
    format!("{} (request {})", answer.message, answer.request_id)
}

impl ClientError {
    /// What kind of failure it is.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Session(error) => match error {
                SessionError::Tls(_)
                | SessionError::Attestation(_)
                | SessionError::KeyNotAttested
                | SessionError::KeyChanged
                | SessionError::NotSealed(_)
                | SessionError::Protocol(_) => ErrorKind::Verification,
                SessionError::IdentityRefused { .. } | SessionError::CallerNotAttested(_) => ErrorKind::Denied,
                SessionError::Unreachable(_)
                | SessionError::TimedOut { .. }
                | SessionError::Lost(_)
                | SessionError::NotSent
                | SessionError::NoAttestation(_)
                | SessionError::Entropy(_) => ErrorKind::Unavailable,
            },
            Self::Log(error) => match error {
                LogError::Memory { .. } | LogError::NoSuchEvent { .. } | LogError::Pruned { .. } => {
                    ErrorKind::Malformed
                }
                LogError::Contended { .. } => ErrorKind::Unavailable,
                _ => ErrorKind::Verification,
            },
            Self::Denied(_) | Self::Revoked(_) | Self::Conflict(_) => ErrorKind::Denied,
            Self::Malformed(_) => ErrorKind::Malformed,
            Self::Unverified(_) => ErrorKind::Verification,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Content(error) => match error {
                ContentError::EndedEarly(_)
                | ContentError::Unbounded
                | ContentError::OtherKey { .. }
                | ContentError::OtherContext { .. }
                | ContentError::Message(_) => ErrorKind::Verification,
                ContentError::Header(error) if !error.is_malformed() => ErrorKind::Verification,
                ContentError::Header(_) => ErrorKind::Malformed,
                ContentError::Stalled(_) | ContentError::Stopped => ErrorKind::Unavailable,
                ContentError::Input(_) | ContentError::Output(_) => ErrorKind::Malformed,
            },
        }
    }

    /// The reason's stable name, where it is not the enclave that refuses: its answers have a code.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Session(error) => Some(error.reason()),
            Self::Log(error) => Some(error.reason()),
            Self::Content(error) => Some(match error {
                ContentError::EndedEarly(_) => "content-ended-early",
                ContentError::Unbounded => "content-unbounded",
                ContentError::Stalled(_) => "content-stalled",
                ContentError::OtherKey { .. } => "other-key",
                ContentError::OtherContext { .. } => "other-context",
                ContentError::Header(error) | ContentError::Message(error) => error.reason(),
                ContentError::Stopped => "stopped",
                ContentError::Input(_) => "input",
                ContentError::Output(_) => "output",
            }),
            _ => None,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(error) => error.retryable,
            _ => matches!(self.kind(), ErrorKind::Unavailable),
        }
    }

    /// What the enclave answered, where it did.
    pub const fn answer(&self) -> Option<&ApiError> {
        match self {
            Self::Denied(error)
            | Self::Revoked(error)
            | Self::Conflict(error)
            | Self::Malformed(error)
            | Self::Unverified(error)
            | Self::Unavailable(error) => Some(error),
            Self::Session(_) | Self::Log(_) | Self::Content(_) => None,
        }
    }
}

impl From<ApiError> for ClientError {
    fn from(error: ApiError) -> Self {
        match error.code {
            ErrorCode::Denied | ErrorCode::Unauthenticated => Self::Denied(error),
            ErrorCode::Revoked | ErrorCode::Suspended => Self::Revoked(error),
            ErrorCode::Conflict => Self::Conflict(error),
            ErrorCode::Malformed | ErrorCode::TooLarge | ErrorCode::NoSuchRoute => Self::Malformed(error),
            ErrorCode::Unverified | ErrorCode::CallerRefused => Self::Unverified(error),
            ErrorCode::IdempotencyKeyReused => Self::Conflict(error),
            _ => Self::Unavailable(error),
        }
    }
}
