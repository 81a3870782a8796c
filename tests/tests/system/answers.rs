use client::ClientError;
use transcode_confidential::protocol::api::ErrorCode;

/// What the enclave answered instead of doing what it was asked.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    let error = result.unwrap_err();
    match error.answer() {
        Some(answer) => answer.code,
        None => panic!("no answer of the enclave: {error}"),
    }
}

/// The same, and what it told people.
pub(crate) fn answer<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (ErrorCode, String) {
    let error = result.unwrap_err();
    let answer = error.answer().unwrap_or_else(|| panic!("no answer of the enclave: {error}"));
    (answer.code, answer.message.clone())
}
