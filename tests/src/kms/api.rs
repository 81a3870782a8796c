use serde_json::{Value, json};

/// An error as AWS JSON 1.1 has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, code, message: message.into() }
    }

    pub(super) fn body(&self) -> Value {
        json!({ "__type": self.code, "message": self.message })
    }
}
