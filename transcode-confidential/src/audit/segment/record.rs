use thiserror::Error;

use super::cut::RecordView;

/// Length of a record's head, in bytes.
pub const RECORD_HEAD: usize = 16;
/// Greatest length of a record's payload, in bytes.
pub const RECORD_LIMIT: usize = 256 * 1024;
/// The unit in which a disk writes or does not write.
const SECTOR: usize = 512;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordKind {
    /// The leaf of an event.
    Entry = 1,
    /// A key as KMS wrapped it.
    WrappedKey = 2,
    /// 160 bytes of [`crate::audit::Seal`].
    Seal = 3,
    /// A C2SP signed note.
    Checkpoint = 4,
    /// An attestation document.
    Attestation = 5,
    /// A part of a snapshot.
    Snapshot = 6,
    /// 80 bytes of [`super::Footer`].
    Footer = 7,
    /// A policy as its authority signed it.
    Policy = 8,
    /// A restore document as the policy authority signed it.
    Restoration = 9,
}

impl RecordKind {
    /// The kind of this code.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Entry,
            2 => Self::WrappedKey,
            3 => Self::Seal,
            4 => Self::Checkpoint,
            5 => Self::Attestation,
            6 => Self::Snapshot,
            7 => Self::Footer,
            8 => Self::Policy,
            9 => Self::Restoration,
            _ => return None,
        })
    }

    /// Whether an entry that follows must name the record's digest.
    pub const fn is_attachment(self) -> bool {
        matches!(self, Self::WrappedKey | Self::Attestation | Self::Snapshot | Self::Policy | Self::Restoration)
    }
}

/// One record.
///
/// On disk: `payload length (4) || kind (1) || zero (3) || CRC32C of the payload (4) || CRC32C of the 12 bytes before (4) ||
/// payload`, integers big-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the payload is.
    pub kind: RecordKind,
    /// The payload, at most [`RECORD_LIMIT`] bytes.
    pub payload: Vec<u8>,
}

impl Record {
    /// A record; the payload must be within [`RECORD_LIMIT`], as every reader checks.
    pub fn new(kind: RecordKind, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, payload: payload.into() }
    }

    /// Appends the record as it lies on disk.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        RecordView::from(self).write_to(out);
    }

    /// Length on disk, in bytes.
    pub const fn disk_len(&self) -> usize {
        RECORD_HEAD + self.payload.len()
    }
}

/// A record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{kind} at offset {offset}")]
pub struct RecordError {
    /// Where the record starts in the file.
    pub offset: u64,
    /// What is wrong with it.
    pub kind: DamageKind,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DamageKind {
    /// The head's check sum does not match.
    #[error("the check sum of a record's head does not match")]
    Head,
    /// The payload's check sum does not match.
    #[error("the check sum of a record does not match")]
    Payload,
    /// The head is whole, but says what no record says.
    #[error("a record of unknown kind or forbidden length")]
    Unknown,
    /// The file ends inside the record.
    #[error("the file ends inside a record")]
    Ends,
}

/// Cuts a stream of bytes into records. Holds one record and what was pushed with it, never what a length field promises.
#[derive(Debug, Default)]
pub struct RecordBuffer {
    buffer: Vec<u8>,
    start: usize,
    offset: u64,
}

impl RecordBuffer {
    /// Starts at `offset` in the file.
    pub const fn at(offset: u64) -> Self {
        Self { buffer: Vec::new(), start: 0, offset }
    }

    /// Adds the bytes that come next in the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Passes over a record of that length which was cut elsewhere. `false`, and nothing passed, where bytes wait here.
    pub fn pass(&mut self, length: usize) -> bool {
        let passed = self.rest().is_empty();
        self.offset += if passed { length as u64 } else { 0 };
        passed
    }

    /// Offset in the file of the next record.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes of the file from the next record on, as far as they were pushed.
    pub fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// The next whole record, or `None` where more bytes are needed.
    ///
    /// # Errors
    /// [`RecordError`]; the record stays in the buffer.
    pub fn next_record(&mut self) -> Result<Option<Record>, RecordError> {
        let found = RecordView::first_of(self.rest()).map_err(|kind| RecordError { offset: self.offset, kind })?;
        let Some(record) = found.map(RecordView::to_record) else { return Ok(None) };
        self.start += record.disk_len();
        self.offset += record.disk_len() as u64;
        Ok(Some(record))
    }
}

/// Whether `rest`, the end of a file from the first unreadable record at file offset `offset` on, looks as an interrupted
/// write leaves it: ending inside its first record, empty from some sector boundary on, or as [`starts_empty`] says.
///
/// A single changed byte does not look like that: it leaves no empty sector, and a head whose length was changed no longer
/// matches its own check sum. But for one case: where all that the write had behind a sector boundary were zeros, nobody can
/// tell. A batch ends in a signature, so that takes one that ends in a zero right behind a boundary.
pub fn is_torn(rest: &[u8], offset: u64) -> bool {
    let mut buffer = RecordBuffer::at(offset);
    buffer.push(rest);
    // Fewer bytes than the record needs, where its head is whole or missing.
    let ends_inside = matches!(buffer.next_record(), Ok(None));
    let length = match rest.first_chunk::<4>() {
        Some(length) => RECORD_HEAD + (u32::from_be_bytes(*length) as usize).min(RECORD_LIMIT),
        None => RECORD_HEAD,
    };
    let mut boundaries = (to_boundary(offset)..rest.len().min(length)).step_by(SECTOR);
    ends_inside
        || starts_empty(rest, offset)
        || boundaries.any(|at| rest.get(at..).is_some_and(|tail| tail.iter().all(|byte| *byte == 0)))
}

/// Whether `rest` is empty up to the next sector boundary at least. A file system may bring the blocks that a write added to
/// disk before the one that it only went on in, so whatever follows the boundary may be whole.
pub fn starts_empty(rest: &[u8], offset: u64) -> bool {
    let start = rest.get(..to_boundary(offset)).unwrap_or(rest);
    // Of the first five bytes of a record, length and kind, two at least are not zero.
    start.len() >= 5 && start.iter().all(|byte| *byte == 0)
}

fn to_boundary(offset: u64) -> usize {
    let into_sector = usize::try_from(offset % SECTOR as u64).unwrap_or_default();
    if into_sector == 0 { 0 } else { SECTOR - into_sector }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(records: &[Record]) -> Vec<u8> {
        let mut out = Vec::new();
        records.iter().for_each(|record| record.write_to(&mut out));
        out
    }

    fn sample() -> Vec<Record> {
        vec![
            Record::new(RecordKind::Entry, *b"leaf"),
            Record::new(RecordKind::Seal, [7; 160]),
            Record::new(RecordKind::Checkpoint, []),
        ]
    }

    #[test]
    fn records_come_back_however_the_stream_is_cut() {
        let bytes = disk(&sample());
        for step in 1..bytes.len() {
            let mut buffer = RecordBuffer::at(96);
            let mut found = Vec::new();
            for chunk in bytes.chunks(step) {
                buffer.push(chunk);
                while let Some(record) = buffer.next_record().unwrap() {
                    found.push(record);
                }
            }
            assert_eq!(found, sample());
            assert_eq!(buffer.offset(), 96 + bytes.len() as u64);
        }
    }

    #[test]
    fn no_changed_byte_goes_unnoticed_or_looks_torn() {
        let bytes = disk(&sample()[..2]);
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                let mut buffer = RecordBuffer::at(96);
                buffer.push(&changed);
                let mut error = None;
                while error.is_none() {
                    match buffer.next_record() {
                        Ok(Some(_)) => {}
                        Ok(None) => panic!("byte {at} went unnoticed"),
                        Err(damage) => error = Some(damage),
                    }
                }
                assert!(!is_torn(buffer.rest(), error.unwrap().offset), "byte {at} looks torn");
            }
        }
    }

    #[test]
    fn every_prefix_and_every_tail_of_empty_sectors_looks_torn() {
        let bytes = disk(&[Record::new(RecordKind::Entry, vec![5; 3000])]);
        for end in 1..bytes.len() {
            assert!(is_torn(&bytes[..end], 96), "{end}");
        }
        for sector in 1..6 {
            let mut torn = bytes.clone();
            torn[sector * 512 - 96..].fill(0);
            torn.extend([0; 4096]);
            assert!(is_torn(&torn, 96));
        }
    }

    #[test]
    fn a_write_may_miss_its_start_and_have_the_rest() {
        let bytes = disk(&[Record::new(RecordKind::Entry, vec![5; 3000]), Record::new(RecordKind::Seal, [7; 160])]);
        for offset in [96, 500, 507, 1000, 1023 - 4] {
            for boundary in [512, 1024, 4096] {
                let mut torn = bytes.clone();
                let missing = boundary - offset % boundary;
                torn.iter_mut().take(missing).for_each(|byte| *byte = 0);
                assert!(is_torn(&torn, offset as u64), "{offset} up to a multiple of {boundary}");
                // In the middle of a write nothing is missing alone.
                let mut rotten = bytes.clone();
                rotten.iter_mut().skip(missing).take(512).for_each(|byte| *byte = 0);
                assert!(missing + 512 > bytes.len() || !is_torn(&rotten, offset as u64), "{offset} from {boundary}");
            }
        }
        assert!(is_torn(&[0; 96], 2070), "a write inside one sector of which only the length arrived");
    }
}
