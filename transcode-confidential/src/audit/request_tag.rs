use sha2::{Digest as _, Sha256};

use crate::ids::{Digest, Principal};

/// Names a request that came with an idempotency key, in the event that records what it did.
///
/// 64 bytes in the leaf: `key || request`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub struct RequestTag {
    /// `SHA-256("transcode-confidential/idempotency/v1" || 0x00 || principal || 0x00 || idempotency key)`: the same key of
    /// two principals is two keys.
    pub key: Digest,
    /// What was asked: see [`RequestTag::new`].
    pub request: Digest,
}

impl RequestTag {
    /// Length in bytes.
    pub const LEN: usize = 64;

    /// The tag of a request: `request = SHA-256(method || 0x00 || path || 0x00 || body)`.
    pub fn new(principal: &Principal, idempotency_key: &str, (method, path, body): (&str, &str, &[u8])) -> Self {
        let key = Sha256::new()
            .chain_update(b"transcode-confidential/idempotency/v1\0")
            .chain_update(principal.as_str())
            .chain_update([0])
            .chain_update(idempotency_key);
        let request = Sha256::new()
            .chain_update(method)
            .chain_update([0])
            .chain_update(path)
            .chain_update([0])
            .chain_update(body);
        Self { key: Digest::new(key.finalize().into()), request: Digest::new(request.finalize().into()) }
    }

    /// The tag of one item of a request that does several things: `key = SHA-256(key || item (8))`, and the same request.
    #[must_use]
    pub fn item(self, item: u64) -> Self {
        let key = Sha256::new().chain_update(self.key.as_bytes()).chain_update(item.to_be_bytes());
        Self { key: Digest::new(key.finalize().into()), request: self.request }
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [&self.key.as_bytes()[..], self.request.as_bytes()].concat()
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        let (key, request) = bytes.split_first_chunk()?;
        Some(Self { key: Digest::new(*key), request: Digest::new(request.try_into().ok()?) })
    }
}
