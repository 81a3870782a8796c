use std::fmt;

use thiserror::Error;

/// The two layers of a document that are CBOR each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The COSE_Sign1 around everything.
    Envelope,
    /// The signed map within it.
    Payload,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Envelope => "envelope",
            Self::Payload => "payload",
        })
    }
}

/// What can be wrong with the shape of the CBOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StructureFault {
    /// The input ends inside an item.
    #[error("the input ends inside an item")]
    Truncated,
    /// Bytes follow the last item.
    #[error("bytes follow the last item")]
    TrailingBytes,
    /// An indefinite length anywhere but on the payload map.
    #[error("an indefinite length")]
    IndefiniteLength,
    /// The indefinite payload map is not ended by a break.
    #[error("the indefinite map has no break")]
    MissingBreak,
    /// A map key that occurred before.
    #[error("a repeated map key")]
    DuplicateKey,
    /// A length or integer that has a shorter encoding.
    #[error("a length or integer not in its shortest form")]
    NotShortest,
    /// More nested arrays and maps than a document has.
    #[error("too deeply nested an item")]
    TooDeep,
    /// More items than a document can have.
    #[error("too many items")]
    TooManyItems,
    /// A tag, float, negative integer, simple value or reserved form, or a map key that is neither integer nor text.
    #[error("an item of a kind that documents do not use")]
    UnsupportedItem,
    /// A text string that is not UTF-8.
    #[error("a text that is not UTF-8")]
    NotUtf8,
}

impl StructureFault {
    /// The reason's stable name.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::TrailingBytes => "trailing-bytes",
            Self::IndefiniteLength => "indefinite-length",
            Self::MissingBreak => "missing-break",
            Self::DuplicateKey => "duplicate-key",
            Self::NotShortest => "not-shortest",
            Self::TooDeep => "too-deep",
            Self::TooManyItems => "too-many-items",
            Self::UnsupportedItem => "unsupported-item",
            Self::NotUtf8 => "not-utf8",
        }
    }
}
