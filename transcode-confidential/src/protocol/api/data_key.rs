//! Data keys that clients work with on their own cores.

use std::{borrow::Cow, io};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use super::{ErrorCode, ReceiptText};
use crate::{
    message::{ContextError, EncryptionContext, WrappedDataKey},
    secret::KeyMaterial,
};

/// Most data keys that one request issues or unwraps.
pub const DATA_KEY_BATCH: usize = 256;
/// Greatest length of the JSON body of a request about data keys, in bytes.
pub const DATA_KEYS_LIMIT: usize = 256 * 1024;

/// Body of `POST /v1/keys/{id}/data-keys`: one data key for each message that the caller is going to write.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssueDataKeys {
    /// Pairs that every message will carry.
    #[serde(default, skip_serializing_if = "EncryptionContext::is_empty")]
    pub context: EncryptionContext,
    /// Names the content on the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
    /// How many; 1 where neither this nor `segments` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// In place of a count: one data key for each of these, which are the pairs that only its message will carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<EncryptionContext>,
}

/// Why a request for data keys makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DataKeysError {
    /// None, or more than [`DATA_KEY_BATCH`].
    #[error("ask for 1 to {DATA_KEY_BATCH} data keys at a time")]
    Count,
    /// Both a count and segments.
    #[error("give a count or segments, not both")]
    Both,
    /// Pairs of a segment that do not go together with those of all messages.
    #[error("the context of segment {0}: {1}")]
    Segment(usize, ContextError),
}

impl IssueDataKeys {
    /// The context of each message, in order.
    ///
    /// # Errors
    /// [`DataKeysError`].
    pub fn contexts(&self) -> Result<Vec<EncryptionContext>, DataKeysError> {
        if !self.segments.is_empty() {
            if self.count.is_some() {
                return Err(DataKeysError::Both);
            }
            if self.segments.len() > DATA_KEY_BATCH {
                return Err(DataKeysError::Count);
            }
            let merged = self.segments.iter().enumerate().map(|(index, pairs)| {
                let mut context = self.context.clone();
                let added = pairs.iter().try_for_each(|(key, value)| context.insert(key, value));
                added.map(|()| context).map_err(|error| DataKeysError::Segment(index, error))
            });
            return merged.collect();
        }
        let count = self.count.unwrap_or(1) as usize;
        if !(1..=DATA_KEY_BATCH).contains(&count) {
            return Err(DataKeysError::Count);
        }
        Ok(vec![self.context.clone(); count])
    }
}

/// Answer to [`IssueDataKeys`]: the data keys of the first messages asked for, at least one. There are fewer than were
/// asked for where the active version reached its limit in between; the rest may be asked for again.
#[derive(Debug, Serialize, Deserialize)]
pub struct IssuedDataKeys {
    /// In the order of the contexts.
    pub data_keys: Vec<IssuedDataKeyInfo>,
}

/// One issued data key.
#[derive(Debug, Serialize, Deserialize)]
pub struct IssuedDataKeyInfo {
    /// The key itself, for one message: a member `plaintext` or `sealed`.
    #[serde(flatten)]
    pub key: ReleasedKey,
    /// What the message's header carries; names the content key and its version.
    pub wrapped: WrappedText,
    /// Receipt of the event that records it.
    pub receipt: ReceiptText,
}

/// Body of `POST /v1/data-keys/unwrap`: 1 to [`DATA_KEY_BATCH`] items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnwrapDataKeys {
    /// Names the content on the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
    /// The data keys.
    pub items: Vec<UnwrapItem>,
}

/// A wrapped data key, as a message's header carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnwrapItem {
    /// The wrapped key; names its content key.
    pub wrapped: WrappedText,
    /// The whole context of the message, which the wrapped key is bound to.
    #[serde(default, skip_serializing_if = "EncryptionContext::is_empty")]
    pub context: EncryptionContext,
}

/// Answer to [`UnwrapDataKeys`]: one result for each item, in order.
#[derive(Debug, Serialize, Deserialize)]
pub struct UnwrappedDataKeys {
    /// The results.
    pub items: Vec<UnwrapOutcome>,
}

/// What came of one item.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnwrapOutcome {
    /// It was unwrapped.
    DataKey(Box<UnwrappedDataKeyInfo>),
    /// It was refused, as if it had come alone.
    Error(ItemError),
}

/// An unwrapped data key.
#[derive(Debug, Serialize, Deserialize)]
pub struct UnwrappedDataKeyInfo {
    /// The key itself: a member `plaintext` or `sealed`.
    #[serde(flatten)]
    pub key: ReleasedKey,
    /// Receipt of the event that records it.
    pub receipt: ReceiptText,
}

/// Why one item of a batch was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemError {
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// What went wrong, for people.
    pub message: String,
    /// Whether the same item may succeed later.
    pub retryable: bool,
}

/// A data key on its way to whoever asked for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleasedKey {
    /// Inside TLS and nothing else: to a caller that has not attested itself.
    Plaintext(KeyText),
    /// To an attested caller, encrypted to the public key in its document.
    Sealed(SealedText),
}

/// A secret that is encrypted to an attested caller, as it travels in JSON: base64 of what RSAES-OAEP (RFC 8017) with SHA-256,
/// MGF1-SHA-256 and the empty label makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedText(pub Vec<u8>);

impl Serialize for SealedText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for SealedText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(D::Error::custom)
    }
}

/// A data key as it travels in JSON, base64. What it is written to should be a [`SecretBuffer`].
#[derive(Debug)]
pub struct KeyText(pub KeyMaterial);

impl Serialize for KeyText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.0.expose())))
    }
}

impl<'de> Deserialize<'de> for KeyText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        // Room for a group more than 32 bytes take, which is what the decoder asks for.
        let mut bytes = Zeroizing::new([0; 36]);
        let length = STANDARD.decode_slice(text.as_bytes(), bytes.as_mut_slice());
        if let Cow::Owned(mut text) = text {
            text.zeroize();
        }
        let (Ok(32), Some(key)) = (length, bytes.first_chunk::<32>()) else {
            return Err(D::Error::custom("not base64 of 32 bytes"));
        };
        Ok(Self(KeyMaterial::copied_from(key)))
    }
}

/// A wrapped data key as it travels in JSON: base64 of [`WrappedDataKey::to_bytes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedText(pub WrappedDataKey);

impl Serialize for WrappedText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0.to_bytes()))
    }
}

impl<'de> Deserialize<'de> for WrappedText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)?;
        WrappedDataKey::from_bytes(&bytes).map(Self).map_err(D::Error::custom)
    }
}

/// Bytes that hold secrets: wiped when dropped, and whenever they move to a larger place.
#[derive(Default)]
pub struct SecretBuffer(Zeroizing<Vec<u8>>);

impl SecretBuffer {
    /// An empty buffer with room for some bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// Where the value cannot be JSON.
    pub fn json<T: Serialize>(value: &T, capacity: usize) -> Result<Self, serde_json::Error> {
        let mut buffer = Self::with_capacity(capacity);
        serde_json::to_writer(&mut buffer, value).map(|()| buffer)
    }
}

impl io::Write for SecretBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * self.0.capacity())));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRef<[u8]> for SecretBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretBuffer(secret)")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
        EncryptionContext::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn each_segment_has_the_common_pairs_and_its_own() {
        let request = IssueDataKeys {
            context: context(&[("title", "Metropolis")]),
            segments: vec![context(&[("segment", "1")]), context(&[("segment", "2")])],
            ..IssueDataKeys::default()
        };
        let contexts = request.contexts().unwrap();
        assert_eq!(contexts[1], context(&[("title", "Metropolis"), ("segment", "2")]));
        assert_eq!(contexts.len(), 2);
    }

    #[test]
    fn a_count_stands_for_equal_contexts_and_nothing_for_one() {
        let request = |count| IssueDataKeys { count, ..IssueDataKeys::default() };
        assert_eq!(request(None).contexts().unwrap().len(), 1);
        assert_eq!(request(Some(256)).contexts().unwrap().len(), 256);
        for wrong in [0, 257, u32::MAX] {
            assert_eq!(request(Some(wrong)).contexts(), Err(DataKeysError::Count));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let segments = vec![context(&[("a", "1")])];
        let both = IssueDataKeys { count: Some(1), segments: segments.clone(), ..IssueDataKeys::default() };
        assert_eq!(both.contexts(), Err(DataKeysError::Both));
        let many = IssueDataKeys { segments: vec![context(&[]); 257], ..IssueDataKeys::default() };
        assert_eq!(many.contexts(), Err(DataKeysError::Count));
        let twice = IssueDataKeys { context: context(&[("a", "2")]), segments, ..IssueDataKeys::default() };
        assert_eq!(twice.contexts(), Err(DataKeysError::Segment(0, ContextError::DuplicateKey)));
    }

    #[test]
    fn a_key_survives_json_and_nothing_else_is_taken_for_one() {
        let json = SecretBuffer::json(&KeyText(KeyMaterial::from_bytes([7; 32])), 0).unwrap();
        let KeyText(back) = serde_json::from_slice(json.as_ref()).unwrap();
        assert_eq!(back.expose(), &[7; 32]);
        for length in [0, 31, 33, 35, 36, 64] {
            let json = format!("\"{}\"", STANDARD.encode(vec![7; length]));
            assert!(serde_json::from_str::<KeyText>(&json).is_err(), "{length}");
        }
    }

    #[test]
    fn a_key_is_released_in_plain_or_sealed_under_another_name() {
        let json = |key: &ReleasedKey| serde_json::to_string(key).unwrap();
        let sealed = ReleasedKey::Sealed(SealedText(vec![7; 3]));
        assert_eq!(json(&sealed), r#"{"sealed":"BwcH"}"#);
        let plain = ReleasedKey::Plaintext(KeyText(KeyMaterial::from_bytes([0; 32])));
        assert_eq!(json(&plain), format!(r#"{{"plaintext":"{}"}}"#, STANDARD.encode([0; 32])));
        assert!(matches!(serde_json::from_str(r#"{"sealed":"BwcH"}"#), Ok(ReleasedKey::Sealed(SealedText(_)))));
        for neither in ["{}", r#"{"sealed":"?"}"#, r#"{"key":"BwcH"}"#, r#"{"plaintext":"BwcH"}"#] {
            assert!(serde_json::from_str::<ReleasedKey>(neither).is_err(), "{neither}");
        }
    }

    #[test]
    fn a_buffer_that_grows_keeps_what_it_has() {
        let mut buffer = SecretBuffer::with_capacity(1);
        for part in [&b"one"[..], b" two", b"", b" three"] {
            buffer.write_all(part).unwrap();
        }
        assert_eq!(buffer.as_ref(), b"one two three");
        assert!(!format!("{buffer:?}").contains("one"));
    }
}
