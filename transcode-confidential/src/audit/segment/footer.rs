use crate::ids::{Digest, LeafHash, Sequence};

/// The last record of a closed segment; written by the parent, so a convenience and no proof.
///
/// 80 bytes: `first sequence (8) || log size after the last event (8) || last leaf hash (32) || SHA-256 of the file up to the
/// footer record (32)`, integers big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Position of the first event of the segment.
    pub first: Sequence,
    /// Size of the log after its last event.
    pub size: u64,
    /// Leaf hash of its last event.
    pub last: LeafHash,
    /// SHA-256 of all bytes of the file before the footer's record.
    pub content: Digest,
}

impl Footer {
    /// Length in bytes.
    pub const LEN: usize = 80;

    /// The 80 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.first.0.to_be_bytes()[..], &self.size.to_be_bytes(), self.last.as_bytes(), self.content.as_bytes()]
            .concat()
    }

    /// Reads 80 bytes; `None` for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (first, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (last, content) = rest.split_first_chunk()?;
        Some(Self {
            first: Sequence(u64::from_be_bytes(*first)),
            size: u64::from_be_bytes(*size),
            last: LeafHash::new(*last),
            content: Digest::new(content.try_into().ok()?),
        })
    }
}
