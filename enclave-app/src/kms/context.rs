//! What a wrapped key is bound to.

use std::collections::BTreeMap;

use transcode_confidential::{
    attestation::UserData,
    ids::{Digest, KeyId, KeyVersion, LogId},
};

/// What a wrapped key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WrapPurpose {
    /// The stable key that signs a log's checkpoints.
    LogKey,
    /// One version of a content key.
    ContentKey,
}

impl WrapPurpose {
    /// The value of the context pair `transcode-confidential:purpose`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LogKey => "log-key",
            Self::ContentKey => "content-key",
        }
    }
}

/// The encryption context that a wrapped key is bound to. KMS authenticates it: a key wrapped under one context cannot be
/// unwrapped under another, so a host that swaps wrapped keys gets refusals, not keys.
///
/// It is made from the enclave's own state, never from what a record says about itself.
///
/// ```
/// use enclave_app::kms::WrapContext;
/// use transcode_confidential::ids::{KeyVersion, LogId};
///
/// let context = WrapContext::content_key(LogId::new([7; 16]), "content-key-1".parse()?, KeyVersion(3));
/// assert_eq!(context.pairs()["transcode-confidential:key-version"], "3");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapContext {
    log_id: LogId,
    key: Option<(KeyId, KeyVersion)>,
}

impl WrapContext {
    /// For the log key of `log_id`.
    pub const fn log_key(log_id: LogId) -> Self {
        Self { log_id, key: None }
    }

    /// For one version of a content key recorded in `log_id`.
    pub const fn content_key(log_id: LogId, key_id: KeyId, version: KeyVersion) -> Self {
        Self { log_id, key: Some((key_id, version)) }
    }

    /// What the wrapped key is for.
    pub const fn purpose(&self) -> WrapPurpose {
        match self.key {
            None => WrapPurpose::LogKey,
            Some(_) => WrapPurpose::ContentKey,
        }
    }

    /// The log that the key belongs to.
    pub const fn log_id(&self) -> LogId {
        self.log_id
    }

    /// The pairs as KMS gets them.
    pub fn pairs(&self) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::from([
            (named("log-id"), self.log_id.to_string()),
            (named("purpose"), self.purpose().as_str().to_owned()),
        ]);
        if let Some((key_id, version)) = &self.key {
            pairs.insert(named("key-id"), key_id.to_string());
            pairs.insert(named("key-version"), version.to_string());
        }
        pairs
    }
}

/// Ties an attestation document to the call it was made for: `SHA-256(operation || 0x00 || serialized context)`, where the
/// context is serialized as the AWS Encryption SDK does: pairs in ascending order of their keys' bytes, a 16-bit count, and
/// a 16-bit length before each text; no bytes at all for no pairs.
pub fn request_hash(operation: &str, pairs: &BTreeMap<String, String>) -> Digest {
    let mut serialized = Vec::new();
    if !pairs.is_empty() {
        serialized.extend_from_slice(&length(pairs.len()));
        for text in pairs.iter().flat_map(|(key, value)| [key, value]) {
            serialized.extend_from_slice(&length(text.len()));
            serialized.extend_from_slice(text.as_bytes());
        }
    }
    UserData::request_hash(operation, &serialized)
}

/// Our pairs are few and short; a longer text would give a hash that no other implementation gives.
fn length(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes()
}

fn named(name: &str) -> String {
    format!("transcode-confidential:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(log: u8, key: &str, version: u32) -> WrapContext {
        WrapContext::content_key(LogId::new([log; 16]), key.parse().unwrap(), KeyVersion(version))
    }

    #[test]
    fn every_part_of_a_context_changes_its_pairs_and_its_hash() {
        let all = [
            content(1, "a", 1),
            content(2, "a", 1),
            content(1, "b", 1),
            content(1, "a", 2),
            WrapContext::log_key(LogId::new([1; 16])),
            WrapContext::log_key(LogId::new([2; 16])),
        ];
        for (i, one) in all.iter().enumerate() {
            for other in &all[i + 1..] {
                assert_ne!(one.pairs(), other.pairs());
                assert_ne!(request_hash("Decrypt", &one.pairs()), request_hash("Decrypt", &other.pairs()));
            }
            assert_ne!(request_hash("Decrypt", &one.pairs()), request_hash("GenerateDataKey", &one.pairs()));
        }
    }

    #[test]
    fn the_serialization_is_that_of_the_encryption_sdk() {
        let pairs = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "é".to_owned())]);
        let mut expected = b"Decrypt\0".to_vec();
        expected.extend_from_slice(b"\x00\x02\x00\x01a\x00\x02\xc3\xa9\x00\x01b\x00\x012");
        assert_eq!(request_hash("Decrypt", &pairs), Digest::of(&expected));
        assert_eq!(request_hash("GenerateRandom", &BTreeMap::new()), Digest::of(b"GenerateRandom\0"));
    }
}
