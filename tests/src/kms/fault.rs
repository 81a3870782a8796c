//! Misbehaviour on request.

use std::time::Duration;

/// One way to answer wrongly. A fault applies to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The plaintext in the clear, and nothing sealed: what a KMS that ignores `Recipient` does.
    PlaintextInstead,
    /// The plaintext in the clear beside what is sealed.
    PlaintextBeside,
    /// Another `KeyId`.
    KeyId(String),
    /// No `KeyId`.
    NoKeyId,
    /// No `CiphertextForRecipient`, and no plaintext either.
    NotSealed,
    /// `CiphertextForRecipient` with this byte inverted; beyond the end, cut off by one byte.
    Garbled(usize),
    /// Sealed to another RSA key than the document's.
    SealedToAnother,
    /// A sealed plaintext of another length.
    PlaintextLength(usize),
    /// Another wrapped key than the one that belongs to the plaintext: none at all.
    NoCiphertextBlob,
    /// An answer after that long.
    Slow(Duration),
    /// Half an answer, then the end of the connection.
    HalfClosed,
    /// The end of the connection instead of an answer.
    Closed,
    /// A reply that is too large to be one.
    Oversized,
    /// A reply that is no JSON.
    NotJson,
    /// An error by name: status, code, message.
    Error(u16, &'static str, &'static str),
}

impl Fault {
    /// As AWS throttles.
    pub const THROTTLED: Self = Self::Error(400, "ThrottlingException", "Rate exceeded");
    /// As AWS says that a session is over.
    pub const EXPIRED: Self =
        Self::Error(400, "ExpiredTokenException", "The security token included in the request is expired");
    /// As AWS fails.
    pub const INTERNAL: Self = Self::Error(500, "KMSInternalException", "An internal error occurred");
}
