use transcode_confidential::{
    audit::{
        Seal, leaf_hash,
        segment::{RecordKind, RecordViews, SegmentHeader},
    },
    ids::{Epoch, LeafHash, LogId, Sequence},
    protocol::host::{Append, Durable, HostError},
};

/// A batch that is fit to be stored, with the bytes that will lie on disk.
///
/// What is checked is what the store itself relies on: that the framing holds, that the seal is the last record and counts as
/// the entries do. Entries are hashed, not read; signatures are not checked.
#[derive(Debug)]
pub struct Batch {
    pub(super) log_id: LogId,
    pub(super) epoch: Epoch,
    pub(super) first: Sequence,
    pub(super) previous: LeafHash,
    pub(super) after: Durable,
    pub(super) bytes: Vec<u8>,
    pub(super) leaves: Vec<LeafHash>,
    /// Whether it begins with a snapshot: then a segment begins with it.
    pub(super) snapshot: bool,
}

/// Where a log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) log: Option<LogId>,
    pub(super) epoch: Epoch,
    pub(super) durable: Durable,
}

impl Batch {
    /// Checks a batch by itself.
    ///
    /// # Errors
    /// [`HostError::Refused`] where no store could take it.
    pub fn new(append: Append) -> Result<Self, HostError> {
        let Append { log_id, epoch, first, previous, after, records: bytes } = append;
        let mut records = RecordViews::of(&bytes);
        let (mut leaves, mut seal, mut snapshot) = (Vec::new(), None, false);
        for (number, record) in records.by_ref().enumerate() {
            if seal.is_some() || record.kind == RecordKind::Footer {
                return Err(HostError::Refused);
            }
            match record.kind {
                RecordKind::Seal => seal = Some(Seal::from_bytes(record.payload).ok_or(HostError::Refused)?),
                RecordKind::Entry => leaves.push(leaf_hash(record.payload)),
                RecordKind::Snapshot => snapshot |= number == 0,
                _ => {}
            }
        }
        let seal = seal.filter(|_| records.rest().is_empty()).ok_or(HostError::Refused)?;
        let stated = Durable { size: seal.state.size, last: seal.state.last };
        if seal.log_id != log_id || seal.state.epoch != epoch || stated != after {
            return Err(HostError::Refused);
        }
        let counted = first.0.checked_add(leaves.len() as u64);
        if counted != Some(after.size) || leaves.last() != Some(&after.last) {
            return Err(HostError::Refused);
        }
        Ok(Self { log_id, epoch, first, previous, after, bytes, leaves, snapshot })
    }

    /// Whether the batch comes next.
    pub(super) fn follows(&self, head: &Head) -> bool {
        head.log.is_none_or(|log| log == self.log_id)
            && self.epoch >= head.epoch
            && self.first.0 == head.durable.size
            && self.previous == head.durable.last
    }

    /// The header of a segment that starts with this batch.
    pub(super) const fn header(&self) -> SegmentHeader {
        SegmentHeader { log_id: self.log_id, epoch: self.epoch, first: self.first, previous: self.previous }
    }

    /// Where the log stands with this batch.
    pub(super) const fn head(&self) -> Head {
        Head { log: Some(self.log_id), epoch: self.epoch, durable: self.after }
    }
}

impl Head {
    /// Of a log that is not there yet.
    pub(super) const EMPTY: Self =
        Self { log: None, epoch: Epoch(0), durable: Durable { size: 0, last: LeafHash::ZERO } };
}
