//! Cutting bytes into records where they lie.

use super::{DamageKind, RECORD_HEAD, RECORD_LIMIT, Record, RecordKind};

/// A record where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// What the payload is.
    pub kind: RecordKind,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Length on disk, in bytes.
    pub const fn disk_len(&self) -> usize {
        RECORD_HEAD + self.payload.len()
    }

    /// Appends the record as it lies on disk.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        // A payload beyond 4 GiB cannot occur; written with a saturated length it would be refused by every reader.
        let [l0, l1, l2, l3] = u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        let [p0, p1, p2, p3] = crc32c::crc32c(self.payload).to_be_bytes();
        let head = [l0, l1, l2, l3, self.kind as u8, 0, 0, 0, p0, p1, p2, p3];
        out.extend_from_slice(&head);
        out.extend_from_slice(&crc32c::crc32c(&head).to_be_bytes());
        out.extend_from_slice(self.payload);
    }

    /// The record by itself.
    pub fn to_record(self) -> Record {
        Record::new(self.kind, self.payload)
    }

    /// The record that `bytes` begin with; `None` where more bytes are needed.
    pub(super) fn first_of(bytes: &'a [u8]) -> Result<Option<Self>, DamageKind> {
        let Some((head, payload)) = bytes.split_first_chunk() else { return Ok(None) };
        let head = Head::read(head)?;
        let Some(payload) = payload.get(..head.length) else { return Ok(None) };
        if crc32c::crc32c(payload) != head.payload_sum {
            return Err(DamageKind::Payload);
        }
        Ok(Some(Self { kind: head.kind, payload }))
    }
}

impl<'a> From<&'a Record> for RecordView<'a> {
    fn from(record: &'a Record) -> Self {
        Self { kind: record.kind, payload: &record.payload }
    }
}

/// The head of a record, whose own check sum matches.
struct Head {
    kind: RecordKind,
    length: usize,
    payload_sum: u32,
}

impl Head {
    fn read(head: &[u8; RECORD_HEAD]) -> Result<Self, DamageKind> {
        let [l0, l1, l2, l3, kind, z0, z1, z2, p0, p1, p2, p3, h0, h1, h2, h3] = *head;
        if crc32c::crc32c(&[l0, l1, l2, l3, kind, z0, z1, z2, p0, p1, p2, p3]) != u32::from_be_bytes([h0, h1, h2, h3]) {
            return Err(DamageKind::Head);
        }
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let kind = RecordKind::from_code(kind).filter(|_| length <= RECORD_LIMIT && [z0, z1, z2] == [0; 3]);
        Ok(Self { kind: kind.ok_or(DamageKind::Unknown)?, length, payload_sum: u32::from_be_bytes([p0, p1, p2, p3]) })
    }
}

/// The records that some bytes consist of, in their order, up to the first that is not whole.
#[derive(Debug, Clone)]
pub struct RecordViews<'a> {
    rest: &'a [u8],
}

impl<'a> RecordViews<'a> {
    /// The records in bytes that begin with one.
    pub const fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is not whole: nothing where every byte belongs to a record.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for RecordViews<'a> {
    type Item = RecordView<'a>;

    fn next(&mut self) -> Option<RecordView<'a>> {
        let record = RecordView::first_of(self.rest).ok().flatten()?;
        self.rest = self.rest.get(record.disk_len()..).unwrap_or_default();
        Some(record)
    }
}

/// How far some bytes consist of whole records, going by their heads alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeRecords {
    /// Length of the whole records, in bytes, up to the first footer with it.
    pub length: usize,
    /// Where that footer starts.
    pub footer: Option<usize>,
    /// What follows is no record, and more bytes would not make it one.
    pub damage: Option<DamageKind>,
}

impl WholeRecords {
    /// Looks at what `bytes` begin with. That the payloads match their check sums is not known afterwards.
    pub fn of(bytes: &[u8]) -> Self {
        let mut found = Self { length: 0, footer: None, damage: None };
        while found.footer.is_none()
            && let Some((head, rest)) = bytes.get(found.length..).and_then(|rest| rest.split_first_chunk())
        {
            match Head::read(head) {
                Ok(head) if rest.len() < head.length => break,
                Ok(head) => {
                    found.footer = (head.kind == RecordKind::Footer).then_some(found.length);
                    found.length += RECORD_HEAD + head.length;
                }
                Err(damage) => {
                    found.damage = Some(damage);
                    break;
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(kinds: &[(RecordKind, usize)]) -> Vec<u8> {
        let mut out = Vec::new();
        kinds.iter().for_each(|(kind, length)| Record::new(*kind, vec![7; *length]).write_to(&mut out));
        out
    }

    #[test]
    fn whole_records_end_where_a_record_does_wherever_the_bytes_end() {
        let bytes = disk(&[(RecordKind::Entry, 40), (RecordKind::Seal, 160), (RecordKind::Checkpoint, 0)]);
        let ends = [0, 56, 232, 248];
        for end in 0..=bytes.len() {
            let length = *ends.iter().rev().find(|whole| **whole <= end).unwrap();
            let expected = WholeRecords { length, footer: None, damage: None };
            assert_eq!(WholeRecords::of(&bytes[..end]), expected, "{end}");
            let mut views = RecordViews::of(&bytes[..end]);
            assert_eq!(views.by_ref().map(|view| view.disk_len()).sum::<usize>(), length);
            assert_eq!(views.rest(), &bytes[length..end]);
        }
    }

    #[test]
    fn a_footer_ends_them() {
        let bytes = disk(&[(RecordKind::Seal, 160), (RecordKind::Footer, 80), (RecordKind::Entry, 5)]);
        assert_eq!(WholeRecords::of(&bytes), WholeRecords { length: 272, footer: Some(176), damage: None });
    }

    #[test]
    fn a_changed_head_ends_them_as_damage_and_a_changed_payload_ends_the_views() {
        let bytes = disk(&[(RecordKind::Entry, 40), (RecordKind::Entry, 30)]);
        for at in 56..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            let found = WholeRecords::of(&changed);
            let head = at < 56 + RECORD_HEAD;
            assert_eq!((found.length, found.damage.is_some()), if head { (56, true) } else { (102, false) }, "{at}");
            assert_eq!(RecordViews::of(&changed).count(), 1, "{at}");
        }
    }
}
