//! From HTTP responses to answers or errors.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use transcode_confidential::protocol::api::{ApiError, ErrorCode};

use crate::{error::ClientError, session::SessionError};

/// A success; the error that any other response carries.
pub(super) fn success(response: Response<Bytes>) -> Result<Response<Bytes>, ClientError> {
    if response.status().is_success() { Ok(response) } else { Err(error(response.status(), response.body())) }
}

/// The value that a body carries.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| SessionError::Protocol(error.to_string()).into())
}

/// The error that a response carries. A code that this version does not know is taken for what its status says.
pub(super) fn error(status: StatusCode, body: &[u8]) -> ClientError {
    #[derive(Deserialize)]
    struct AnyError {
        code: String,
        message: String,
        retryable: bool,
        request_id: String,
    }

    if let Ok(error) = serde_json::from_slice::<ApiError>(body) {
        return error.into();
    }
    let Ok(unknown) = serde_json::from_slice::<AnyError>(body) else {
        return SessionError::Protocol(format!("status {status} without an error that can be read")).into();
    };
    let code = match status.as_u16() {
        400..=402 | 404..=408 | 411..=421 => ErrorCode::Malformed,
        403 => ErrorCode::Denied,
        409 => ErrorCode::Conflict,
        410 => ErrorCode::Revoked,
        422 => ErrorCode::Unverified,
        423 => ErrorCode::Suspended,
        429 => ErrorCode::RateLimited,
        503 => ErrorCode::NotReady,
        _ => ErrorCode::Internal,
    };
    let AnyError { code: name, message, retryable, request_id } = unknown;
    ApiError { code, message: format!("{name}: {message}"), retryable, request_id }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_a_later_version_is_taken_for_what_its_status_says() {
        let body = br#"{"code":"KEY_ASLEEP","message":"wake it","retryable":false,"request_id":"r1"}"#;
        let ClientError::Revoked(error) = error(StatusCode::GONE, body) else { panic!("410 is about revoking") };
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Revoked, "KEY_ASLEEP: wake it"));
    }

    #[test]
    fn every_code_of_this_version_survives_and_has_a_kind() {
        for code in ["DENIED", "REVOKED", "SUSPENDED", "CONFLICT", "MALFORMED", "UNVERIFIED", "AUDIT_UNAVAILABLE"] {
            let body = format!(r#"{{"code":"{code}","message":"m","retryable":true,"request_id":"r"}}"#);
            let error = error(StatusCode::IM_A_TEAPOT, body.as_bytes());
            assert_eq!(error.answer().unwrap().code.to_string(), code);
        }
    }

    #[test]
    fn an_error_that_cannot_be_read_is_no_answer() {
        assert!(error(StatusCode::BAD_GATEWAY, b"<html>").answer().is_none());
    }
}
