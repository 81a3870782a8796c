use crate::{
    audit::{
        Seal,
        segment::{RecordBuffer, RecordKind, is_torn},
    },
    protocol::frame::FRAME_LIMIT,
};

/// Most bytes of a tail that one interrupted write can leave: as many batches as may be under way at once, each in a frame.
const WRITE_LIMIT: usize = BATCHES_UNDER_WAY * FRAME_LIMIT;
/// Batches that an enclave has under way at most before it waits for an acknowledgement.
const BATCHES_UNDER_WAY: usize = 4;

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
        let room = WRITE_LIMIT.saturating_sub(self.kept.len()).min(bytes.len());
        let (kept, beyond) = bytes.split_at(room);
        self.kept.extend_from_slice(kept);
        self.zero_beyond &= beyond.iter().all(|byte| *byte == 0);
    }

    /// Length of the tail in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.length
    }

    /// Whether an interrupted write leaves such a tail. One write holds no more batches than may be under way; a tail with
    /// more seals than that was acknowledged in part, so what is missing in it was there once.
    pub(super) fn is_torn(&self) -> bool {
        self.zero_beyond && is_torn(&self.kept, self.offset) && self.seals() <= BATCHES_UNDER_WAY
    }

    /// Seals in the tail, wherever they start.
    fn seals(&self) -> usize {
        let head = [0, 0, 0, 160, RecordKind::Seal as u8];
        let starts = self.kept.windows(head.len()).enumerate().filter(|(_, window)| *window == head);
        let is_seal = |at: usize| {
            let mut buffer = RecordBuffer::at(0);
            buffer.push(
                self.kept.get(at..).and_then(|rest| rest.get(..rest.len().min(16 + Seal::LEN))).unwrap_or_default(),
            );
            matches!(buffer.next_record(), Ok(Some(_)))
        };
        starts.filter(|(at, _)| is_seal(*at)).take(BATCHES_UNDER_WAY + 1).count()
    }
}
