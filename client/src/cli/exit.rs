use std::{
    fmt,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use serde_json::{Map, Value, json};

use super::terminal::escape;
use crate::{ClientError, ContentError, ErrorKind, log_memory::LogError};

/// How a command ended. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done; for a verification, verified.
    Ok,
    /// 2: wrong use of the command.
    Usage,
    /// 3: input, or a local file, that is malformed or cannot be read or written.
    Malformed,
    /// 4: something that had to be proven was not.
    Verification,
    /// 5: denied by the enclave, revoked, or in conflict with what it has.
    Denied,
    /// 6: not available now.
    Unavailable,
    /// 128 and the number of the signal that ended it.
    Signal(u8),
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 2,
            Self::Malformed => 3,
            Self::Verification => 4,
            Self::Denied => 5,
            Self::Unavailable => 6,
            Self::Signal(number) => 128 + number,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// What a command has to say: as an object, as text, and beside it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) exit: Exit,
    /// Null where the command has printed its own lines.
    pub(super) json: Value,
    pub(super) text: String,
    /// What a person should know, for standard error.
    pub(super) notes: Vec<String>,
}

impl Done {
    pub(super) const fn ok(json: Value, text: String) -> Self {
        Self { exit: Exit::Ok, json, text, notes: Vec::new() }
    }

    /// Everything was said while it went on.
    pub(super) const fn said() -> Self {
        Self::ok(Value::Null, String::new())
    }

    pub(super) fn say(&self, as_json: bool, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<()> {
        for note in &self.notes {
            writeln!(err, "note: {}", escape(note))?;
        }
        if as_json && !self.json.is_null() {
            writeln!(out, "{}", self.json)?;
        } else if as_json {
            return out.flush();
        } else if !self.text.is_empty() {
            writeln!(out, "{}", self.text)?;
        }
        out.flush()
    }
}

/// Why a command has no result.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    code: String,
    message: String,
    retryable: bool,
    /// Further members of the object.
    details: Map<String, Value>,
}

impl Failure {
    fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self { exit, code: code.to_owned(), message: message.into(), retryable: false, details: Map::new() }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "USAGE", message)
    }

    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(Exit::Malformed, "MALFORMED_INPUT", message)
    }

    pub(super) fn file(path: &Path, error: &dyn fmt::Display) -> Self {
        Self::new(Exit::Malformed, "FILE", format!("{}: {error}", path.display()))
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::new(Exit::Unavailable, "UNAVAILABLE", message) }
    }

    pub(super) fn verification(message: impl Into<String>) -> Self {
        Self::new(Exit::Verification, "VERIFICATION_FAILED", message)
    }

    /// Names the reason for programs.
    pub(super) fn because(mut self, reason: impl Into<String>) -> Self {
        self.details.insert("reason".into(), reason.into().into());
        self
    }

    pub(super) fn signal(number: u8) -> Self {
        Self::new(Exit::Signal(number), "INTERRUPTED", "interrupted; nothing was put in place")
    }

    pub(super) fn say(&self, as_json: bool, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<()> {
        if as_json {
            self.say_json(out)?;
        }
        writeln!(err, "confidential: {}", escape(&self.message))
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// What programs are told.
    pub(super) fn object(&self) -> Value {
        let mut object = self.details.clone();
        object.insert("code".into(), self.code.clone().into());
        object.insert("message".into(), self.message.clone().into());
        object.insert("retryable".into(), self.retryable.into());
        object.insert("exit".into(), self.exit.code().into());
        object.into()
    }

    pub(super) fn say_json(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", json!({ "error": self.object() }))?;
        out.flush()
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let (exit, code) = match error.kind() {
            ErrorKind::Malformed => (Exit::Malformed, "MALFORMED_INPUT"),
            ErrorKind::Verification => (Exit::Verification, "VERIFICATION_FAILED"),
            ErrorKind::Denied => (Exit::Denied, "DENIED"),
            ErrorKind::Unavailable => (Exit::Unavailable, "UNAVAILABLE"),
        };
        let code = match (&error, error.answer()) {
            (_, Some(answer)) => answer.code.to_string(),
            (
                ClientError::Content(ContentError::Input(_) | ContentError::Output(_))
                | ClientError::Log(LogError::Memory { .. }),
                _,
            ) => "FILE".into(),
            _ => code.to_owned(),
        };
        let mut details = Map::new();
        if let Some(answer) = error.answer() {
            details.insert("request_id".into(), answer.request_id.clone().into());
        }
        if let Some(reason) = error.reason() {
            details.insert("reason".into(), reason.into());
        }
        Self { exit, code, message: error.to_string(), retryable: error.retryable(), details }
    }
}
