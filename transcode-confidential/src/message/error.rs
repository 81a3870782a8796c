use thiserror::Error;

use super::ContextError;
use crate::entropy::EntropyError;

/// Why a message cannot be written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Some authentication failed: of a wrapped data key, the key commitment, the header, or a frame. Which one is not
    /// told, so that no error helps a forger.
    #[error("the message is not authentic, or not under this key and context")]
    Unauthentic,
    /// The bytes are not a message that this project reads. Nothing secret decides this.
    #[error("malformed message: {0}")]
    Malformed(#[from] Malformed),
    /// No data key of the message is wrapped under the key and version at hand.
    #[error("the message is not wrapped under this key version")]
    OtherKey,
    /// The message lacks a context pair that the reader demands.
    #[error("the message does not carry the expected encryption context")]
    OtherContext,
    /// An encryption context that no message may carry.
    #[error("encryption context refused: {0}")]
    Context(#[from] ContextError),
    /// A frame length of zero or above [`FrameLength::MAX`](super::FrameLength::MAX).
    #[error("a frame length of {0} bytes is out of range")]
    FrameLength(u32),
    /// The plaintext needs more frames than a message may have: 2^32 - 1.
    #[error("the plaintext is too long for one message at this frame length")]
    TooManyFrames,
    /// An earlier call failed; nothing may be released or added after it.
    #[error("the message was given up after an earlier error")]
    GivenUp,
    /// No randomness for a data key, an IV or a message id.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl MessageError {
    /// A stable name for logs, metrics and the wire.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unauthentic => "unauthentic",
            Self::Malformed(malformed) => malformed.reason(),
            Self::OtherKey => "other-key",
            Self::OtherContext => "other-context",
            Self::Context(_) => "context",
            Self::FrameLength(_) => "frame-length",
            Self::TooManyFrames => "too-many-frames",
            Self::GivenUp => "given-up",
            Self::Entropy(_) => "no-entropy",
        }
    }

    /// Whether the input is no message at all, as opposed to one that failed a check.
    pub const fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_))
    }
}

/// What is wrong with the form of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The first byte is not the version of the format.
    #[error("format version {0:#04x} where 0x02 is read")]
    Version(u8),
    /// Another algorithm suite.
    #[error("algorithm suite {0:#06x} where 0x0478 is read")]
    Suite(u16),
    /// The encryption context is not a canonical serialization, or carries what it may not.
    #[error("encryption context: {0}")]
    Context(ContextError),
    /// No data key, or more than [`MAX_ENCRYPTED_DATA_KEYS`](super::MAX_ENCRYPTED_DATA_KEYS).
    #[error("{0} encrypted data keys where 1 to 8 are read")]
    DataKeyCount(u16),
    /// A field of an encrypted data key is longer than its limit or not the text that it should be.
    #[error("an encrypted data key is out of bounds")]
    DataKeyField,
    /// An encrypted data key names our provider and is not of our form.
    #[error("an encrypted data key of ours has another form")]
    ProviderInfo,
    /// A content type other than framed.
    #[error("content type {0:#04x} where framed content, 0x02, is read")]
    ContentType(u8),
    /// A frame length of zero or above the limit.
    #[error("a frame length of {0} bytes")]
    FrameLength(u32),
    /// A frame out of order.
    #[error("frame {found} where frame {expected} was due")]
    Sequence {
        /// The sequence number that was due.
        expected: u32,
        /// The sequence number that was read.
        found: u32,
    },
    /// A frame whose IV is not its sequence number.
    #[error("the IV of frame {0} is not its sequence number")]
    FrameIv(u32),
    /// A final frame that claims more content than a frame may have.
    #[error("a final frame of {0} bytes is longer than the frame length")]
    FinalFrameLength(u32),
    /// The message ends before its final frame does.
    #[error("the message is truncated")]
    Truncated,
    /// Bytes follow the final frame.
    #[error("bytes follow the end of the message")]
    Trailing,
}

impl Malformed {
    const fn reason(self) -> &'static str {
        match self {
            Self::Version(_) => "unsupported-version",
            Self::Suite(_) => "unsupported-suite",
            Self::Context(_) => "malformed-context",
            Self::DataKeyCount(_) => "data-key-count",
            Self::DataKeyField => "data-key-field",
            Self::ProviderInfo => "provider-info",
            Self::ContentType(_) => "not-framed",
            Self::FrameLength(_) => "frame-length",
            Self::Sequence { .. } => "frame-sequence",
            Self::FrameIv(_) => "frame-iv",
            Self::FinalFrameLength(_) => "final-frame-length",
            Self::Truncated => "truncated",
            Self::Trailing => "trailing-bytes",
        }
    }
}
