use std::collections::{BTreeMap, btree_map::Entry};

use thiserror::Error;

use super::cursor::{Cursor, Stop};

/// Context keys with this prefix belong to the Encryption SDK.
const RESERVED_PREFIX: &str = "aws-crypto-";

/// Why an encryption context is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ContextError {
    /// A key with the prefix `aws-crypto-`.
    #[error("keys that start with aws-crypto- are reserved")]
    ReservedKey,
    /// More than [`EncryptionContext::MAX_PAIRS`].
    #[error("more than 64 pairs")]
    TooManyPairs,
    /// Longer than [`EncryptionContext::MAX_BYTES`] when serialized.
    #[error("longer than 8192 bytes")]
    TooLong,
    /// A key that was given twice.
    #[error("a key is given twice")]
    DuplicateKey,
    /// Keys out of order, an empty context with a length, or bytes after the last pair.
    #[error("the serialization is not canonical")]
    NotCanonical,
    /// A key or value that is not UTF-8.
    #[error("a key or value is not UTF-8")]
    NotUtf8,
}

/// Authenticated, **not secret**, pairs of text that travel in a message's header.
///
/// At most [`MAX_PAIRS`](Self::MAX_PAIRS) pairs and [`MAX_BYTES`](Self::MAX_BYTES) serialized; keys are unique and never
/// start with `aws-crypto-`.
///
/// ```
/// use transcode_confidential::message::{ContextError, EncryptionContext};
///
/// let context = EncryptionContext::from_pairs([("title", "Metropolis"), ("reel", "3")])?;
/// assert_eq!(context.serialize(), b"\0\x02\0\x04reel\0\x013\0\x05title\0\x0aMetropolis");
/// assert_eq!(EncryptionContext::from_pairs([("aws-crypto-public-key", "")]), Err(ContextError::ReservedKey));
/// # Ok::<(), ContextError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct EncryptionContext(BTreeMap<String, String>);

impl EncryptionContext {
    /// Most pairs in a context.
    pub const MAX_PAIRS: usize = 64;
    /// Longest serialized context, in bytes.
    pub const MAX_BYTES: usize = 8192;

    /// A context without pairs.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// A context of the given pairs, in any order.
    ///
    /// # Errors
    /// As [`EncryptionContext::insert`], for the first pair that it refuses.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ContextError> {
        pairs.into_iter().try_fold(Self::new(), |mut context, (key, value)| {
            context.insert(key, value)?;
            Ok(context)
        })
    }

    /// Adds one pair; the context is unchanged where that fails.
    ///
    /// # Errors
    /// [`ContextError`]: a reserved or repeated key, too many pairs, too many bytes.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) -> Result<(), ContextError> {
        let (key, value) = (key.into(), value.into());
        if key.starts_with(RESERVED_PREFIX) {
            return Err(ContextError::ReservedKey);
        }
        if self.serialized_len().max(2) + pair_len(&key, &value) > Self::MAX_BYTES {
            return Err(ContextError::TooLong);
        }
        let full = self.0.len() >= Self::MAX_PAIRS;
        match self.0.entry(key) {
            Entry::Occupied(_) => Err(ContextError::DuplicateKey),
            Entry::Vacant(_) if full => Err(ContextError::TooManyPairs),
            Entry::Vacant(vacant) => {
                vacant.insert(value);
                Ok(())
            }
        }
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The pairs, in the order of their keys' bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every pair of `other` is one of ours.
    pub fn includes(&self, other: &Self) -> bool {
        other.iter().all(|(key, value)| self.value(key) == Some(value))
    }

    /// The serialization of the Encryption SDK, which wrapped data keys are bound to: nothing where there are no pairs,
    /// else a 16-bit count and, for each pair in the order of the keys' bytes, key and value behind 16-bit lengths.
    pub fn serialize(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.serialized_len());
        if !self.is_empty() {
            put_length(&mut bytes, self.len());
            for (key, value) in self.iter() {
                for text in [key, value] {
                    put_length(&mut bytes, text.len());
                    bytes.extend_from_slice(text.as_bytes());
                }
            }
        }
        bytes
    }

    /// Reads back exactly what [`serialize`](Self::serialize) writes, and nothing else.
    pub(super) fn deserialize(bytes: &[u8]) -> Result<Self, ContextError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(ContextError::TooLong);
        }
        let mut context = Self::new();
        if bytes.is_empty() {
            return Ok(context);
        }
        let mut cursor = Cursor::new(bytes);
        let count = cursor.u16().map_err(inside)?;
        let mut last: Option<&str> = None;
        for _ in 0..count {
            let key = text(&mut cursor)?;
            let value = text(&mut cursor)?;
            match last {
                Some(last) if last == key => return Err(ContextError::DuplicateKey),
                Some(last) if last > key => return Err(ContextError::NotCanonical),
                _ => context.insert(key, value)?,
            }
            last = Some(key);
        }
        if count == 0 || cursor.at() != bytes.len() { Err(ContextError::NotCanonical) } else { Ok(context) }
    }

    fn serialized_len(&self) -> usize {
        if self.is_empty() { 0 } else { 2 + self.iter().map(|(key, value)| pair_len(key, value)).sum::<usize>() }
    }
}

impl TryFrom<BTreeMap<String, String>> for EncryptionContext {
    type Error = ContextError;

    fn try_from(pairs: BTreeMap<String, String>) -> Result<Self, ContextError> {
        Self::from_pairs(pairs)
    }
}

impl From<EncryptionContext> for BTreeMap<String, String> {
    fn from(context: EncryptionContext) -> Self {
        context.0
    }
}

const fn pair_len(key: &str, value: &str) -> usize {
    4 + key.len() + value.len()
}

/// Writes a length that the limits keep below 2^16.
pub(super) fn put_length(out: &mut Vec<u8>, length: usize) {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
}

fn text<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, ContextError> {
    let bytes = cursor.short_bytes(usize::MAX).map_err(inside)?.unwrap_or_default();
    std::str::from_utf8(bytes).map_err(|_| ContextError::NotUtf8)
}

/// The declared length of the whole context bounds every pair in it.
const fn inside(_: Stop) -> ContextError {
    ContextError::NotCanonical
}
