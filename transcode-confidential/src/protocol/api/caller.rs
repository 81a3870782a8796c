use serde::{Deserialize, Serialize};

use super::ReceiptText;
use crate::ids::Digest;

/// Answer to `POST /v1/caller/challenge`. The document's nonce is [`crate::attestation::caller_nonce`] of this and of the
/// connection's exporter. Good for one document, for a minute, on this connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerChallenge {
    /// 32 bytes, in hexadecimal.
    pub challenge: Digest,
}

/// Answer to `PUT /v1/caller`: on this connection, grants for attested callers of that image are granted for an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerAttested {
    /// SHA-256 of the document.
    pub document: Digest,
    /// Receipt of the event that records it.
    pub receipt: ReceiptText,
}
