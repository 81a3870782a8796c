use crate::audit::segment::{RECORD_HEAD, RECORD_LIMIT, is_torn, starts_empty};

/// The end of a file from its first unreadable record on, in bounded memory: enough to tell an interrupted write from damage.
#[derive(Debug)]
pub(super) struct TornTail {
    offset: u64,
    kept: Vec<u8>,
    length: u64,
    zero_beyond: bool,
}

impl TornTail {
    pub(super) fn new(offset: u64, bytes: &[u8]) -> Self {
        let mut tail = Self { offset, kept: Vec::new(), length: 0, zero_beyond: true };
        tail.push(bytes);
        tail
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let room = (RECORD_HEAD + RECORD_LIMIT - self.kept.len()).min(bytes.len());
        let (kept, beyond) = bytes.split_at(room);
        self.kept.extend_from_slice(kept);
        self.zero_beyond &= beyond.iter().all(|byte| *byte == 0);
    }

    /// Length of the tail in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.length
    }

    /// Whether an interrupted write leaves such a tail.
    pub(super) fn is_torn(&self) -> bool {
        starts_empty(&self.kept, self.offset) || self.zero_beyond && is_torn(&self.kept, self.offset)
    }
}
