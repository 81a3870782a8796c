use transcode_confidential::{
    audit::{
        Seal, leaf_hash,
        segment::{RECORD_LIMIT, RecordKind, SegmentHeader},
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
    pub fn new(append: &Append) -> Result<Self, HostError> {
        let (seal, before) = append.records.split_last().ok_or(HostError::Refused)?;
        let sealed = |record: &&transcode_confidential::audit::segment::Record| record.kind == RecordKind::Seal;
        let seal = Some(seal).filter(sealed).and_then(|seal| Seal::from_bytes(&seal.payload));
        let seal = seal.ok_or(HostError::Refused)?;
        let stated = Durable { size: seal.state.size, last: seal.state.last };
        if seal.log_id != append.log_id || seal.state.epoch != append.epoch || stated != append.after {
            return Err(HostError::Refused);
        }
        let mut leaves = Vec::new();
        for record in before {
            match record.kind {
                RecordKind::Seal | RecordKind::Footer => return Err(HostError::Refused),
                RecordKind::Entry => leaves.push(leaf_hash(&record.payload)),
                _ => {}
            }
            if record.payload.len() > RECORD_LIMIT {
                return Err(HostError::Refused);
            }
        }
        let counted = append.first.0.checked_add(leaves.len() as u64);
        if counted != Some(append.after.size) || leaves.last() != Some(&append.after.last) {
            return Err(HostError::Refused);
        }
        let mut bytes = Vec::with_capacity(append.records.iter().map(|record| record.disk_len()).sum());
        append.records.iter().for_each(|record| record.write_to(&mut bytes));
        let Append { log_id, epoch, first, previous, after, .. } = *append;
        let snapshot = append.records.first().is_some_and(|record| record.kind == RecordKind::Snapshot);
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
