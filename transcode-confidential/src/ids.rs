//! A newtype per meaning: two values that could be confused never share a type.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Why a text is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdError {
    /// Hexadecimal text of the wrong length or with a foreign character.
    #[error("expected {expected} hexadecimal digits")]
    Hex {
        /// Number of digits that the identifier has.
        expected: usize,
    },
    /// The text is empty or too long.
    #[error("expected 1 to {max} characters, got {got}")]
    Length {
        /// Longest accepted text, in bytes.
        max: usize,
        /// Length of the given text, in bytes.
        got: usize,
    },
    /// The text contains a character outside the accepted set.
    #[error("character {found:?} at byte {at} is not allowed here")]
    Character {
        /// The first offending character.
        found: char,
        /// Its byte offset.
        at: usize,
    },
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps the given bytes.
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError::Hex { expected: 2 * $len })?;
                Ok(Self(bytes))
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                <[u8; $len]>::try_from(bytes).map(Self).map_err(|_| IdError::Hex { expected: 2 * $len })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

byte_id!(
    /// Names one audit log for its whole life: 16 random bytes drawn at genesis, written in hexadecimal.
    LogId,
    16
);
byte_id!(
    /// `SHA-256(0x00 || leaf)`: the RFC 6962 leaf hash, and the link of the chain.
    LeafHash,
    32
);
byte_id!(
    /// The RFC 6962 Merkle tree head over a number of leaves.
    RootHash,
    32
);
byte_id!(
    /// A SHA-256 digest of some document or record.
    Digest,
    32
);

impl LeafHash {
    /// What the first leaf of a log names as its predecessor.
    pub const ZERO: Self = Self([0; 32]);
}

impl Digest {
    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The following number, or `None` at the end of the range.
            pub const fn next(self) -> Option<Self> {
                match self.0.checked_add(1) {
                    Some(next) => Some(Self(next)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// Position of an event in its log; the first is 0.
    Sequence,
    u64
);
number_id!(
    /// Number of an enclave boot within a log; the first is 1.
    Epoch,
    u64
);
number_id!(
    /// Version of a content key; the first is 1.
    KeyVersion,
    u32
);

number_id!(
    /// A stretch of some content that has one media key. What it is, a number of a segment or of a stretch of time, is up to
    /// whoever asks for the key.
    Period,
    u64
);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $extra:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Longest accepted text, in bytes.
            pub const MAX: usize = 128;

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.is_empty() || text.len() > Self::MAX {
                    return Err(IdError::Length { max: Self::MAX, got: text.len() });
                }
                let allowed = |at: usize, c: char| {
                    c.is_ascii_alphanumeric() || (at > 0 && (matches!(c, '.' | '_' | ':' | '-') || $extra.contains(c)))
                };
                match text.char_indices().find(|&(at, c)| !allowed(at, c)) {
                    Some((at, found)) => Err(IdError::Character { found, at }),
                    None => Ok(Self(text.to_owned())),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// Names a content key: 1 to 128 of `A-Z a-z 0-9 . _ : -`, starting with a letter or digit. Never reused.
    KeyId,
    ""
);
text_id!(
    /// Names whoever presented a client certificate: its common name, 1 to 128 of `A-Z a-z 0-9 . _ : - @ /`,
    /// starting with a letter or digit.
    Principal,
    "@/"
);
text_id!(
    /// Names content that has media keys, such as one rendition of a film: 1 to 128 of `A-Z a-z 0-9 . _ : -`, starting with a
    /// letter or digit.
    MediaContent,
    ""
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_survive_their_text_form() {
        let log = LogId::new(*b"0123456789abcdef");
        assert_eq!(log.to_string().parse(), Ok(log));
        assert_eq!("content-key-1".parse::<KeyId>().unwrap().as_str(), "content-key-1");
        assert_eq!("ops@studio/eu".parse::<Principal>().unwrap().to_string(), "ops@studio/eu");
    }

    #[test]
    fn a_key_id_that_could_confuse_a_path_or_a_terminal_is_refused() {
        for bad in ["", "-a", ".", "a/b", "a#1", "a b", "a\n", "ключ", "../x", &"a".repeat(129)] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad:?}");
        }
        assert_eq!("a/b".parse::<KeyId>(), Err(IdError::Character { found: '/', at: 1 }));
    }

    #[test]
    fn numbers_end_rather_than_wrap() {
        assert_eq!(Sequence(3).next(), Some(Sequence(4)));
        assert_eq!(KeyVersion(u32::MAX).next(), None);
    }
}
