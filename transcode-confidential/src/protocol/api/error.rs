use std::fmt;

use serde::{Deserialize, Serialize};

/// The body of every response that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// What went wrong, for people. Says nothing that the caller may not know.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Names this request in the enclave's log.
    pub request_id: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (request {})", self.code, self.message, self.request_id)
    }
}

impl std::error::Error for ApiError {}

/// What went wrong. Names and meanings never change; new ones may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum ErrorCode {
    /// 400: the request is malformed.
    Malformed,
    /// 401: a client certificate is needed.
    Unauthenticated,
    /// 403: not granted, or no such key: the two are not told apart.
    Denied,
    /// 404: no such route.
    NoSuchRoute,
    /// 409: the key id is taken, or another version than the expected one is active.
    Conflict,
    /// 410: the key or version was revoked.
    Revoked,
    /// 413: larger than a limit.
    TooLarge,
    /// 422: the content does not verify, or names another context.
    Unverified,
    /// 422: the caller's attestation document is refused.
    CallerRefused,
    /// 422: the idempotency key came with another request before.
    IdempotencyKeyReused,
    /// 423: the key is suspended.
    Suspended,
    /// 429: too many requests.
    RateLimited,
    /// 500: a bug.
    Internal,
    /// 503: the record cannot be kept, so nothing is released.
    AuditUnavailable,
    /// 503: the version has reached its limit and the next one is on its way.
    RotationDue,
    /// 503: KMS cannot be reached, or refuses.
    KmsUnavailable,
    /// 503: a required attestation failed.
    AttestationFailed,
    /// 503: the enclave is starting or stopping.
    NotReady,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Malformed,
        Self::Unauthenticated,
        Self::Denied,
        Self::NoSuchRoute,
        Self::Conflict,
        Self::Revoked,
        Self::TooLarge,
        Self::Unverified,
        Self::CallerRefused,
        Self::IdempotencyKeyReused,
        Self::Suspended,
        Self::RateLimited,
        Self::Internal,
        Self::AuditUnavailable,
        Self::RotationDue,
        Self::KmsUnavailable,
        Self::AttestationFailed,
        Self::NotReady,
    ];

    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::Denied => 403,
            Self::NoSuchRoute => 404,
            Self::Conflict => 409,
            Self::Revoked => 410,
            Self::TooLarge => 413,
            Self::Unverified | Self::CallerRefused | Self::IdempotencyKeyReused => 422,
            Self::Suspended => 423,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::AuditUnavailable
            | Self::RotationDue
            | Self::KmsUnavailable
            | Self::AttestationFailed
            | Self::NotReady => 503,
        }
    }

    /// Whether the same request may succeed later without anybody changing it.
    pub const fn retryable(self) -> bool {
        matches!(self.status(), 429 | 503)
    }
}

/// The code as it is written on the wire.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
