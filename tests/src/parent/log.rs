//! The log that a parent of tests keeps in memory, in the form that lies on disk.

use transcode_confidential::{
    audit::{
        segment::{Footer, Record, RecordKind, RecordViews, SegmentHeader, SegmentName},
        tree::{Node, consistency_proof, inclusion_proof},
    },
    ids::{Digest, LeafHash, LogId, Sequence},
    protocol::host::{Append, Durable, HostError, SegmentInfo},
};

use crate::segments::{self, Segments};

/// Segments, and what they come to.
#[derive(Default)]
pub struct MemoryLog {
    segments: Segments,
    /// Of the events that were given up.
    dropped: Vec<LeafHash>,
    log_id: Option<LogId>,
    leaves: Vec<LeafHash>,
}

impl MemoryLog {
    /// The segments.
    pub const fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Changes the segments behind everybody's back.
    pub fn edit(&mut self, change: impl FnOnce(&mut Segments)) {
        change(&mut self.segments);
        self.look_again();
    }

    /// The hashes of all sealed events, those that were given up included.
    pub fn leaves(&self) -> &[LeafHash] {
        &self.leaves
    }

    fn look_again(&mut self) {
        let (log_id, kept) = segments::sealed(&self.segments);
        self.log_id = log_id.or(self.log_id.filter(|_| !self.dropped.is_empty()));
        self.leaves = self.dropped.iter().copied().chain(kept).collect();
    }

    /// The log, and how far it has come.
    pub fn durable(&self) -> Option<(LogId, Durable)> {
        let last = self.leaves.last()?;
        Some((self.log_id?, Durable { size: self.leaves.len() as u64, last: *last }))
    }

    /// Keeps a sealed batch; one that it has already as well.
    ///
    /// # Errors
    /// [`HostError::OutOfOrder`].
    pub fn append(&mut self, append: &Append) -> Result<Durable, HostError> {
        let size = self.leaves.len() as u64;
        let last = self.leaves.last().copied().unwrap_or(LeafHash::ZERO);
        if append.after.size <= size {
            let same = self.leaves.get(append.after.size as usize - 1) == Some(&append.after.last);
            return if same { Ok(append.after) } else { Err(HostError::OutOfOrder) };
        }
        let follows = append.first.0 == size && append.previous == last;
        if !follows || self.log_id.is_some_and(|log_id| log_id != append.log_id) {
            return Err(HostError::OutOfOrder);
        }
        let name = match self.segments.last_key_value() {
            Some((name, _)) if name.epoch == append.epoch && !begins_with_snapshot(&append.records) => *name,
            _ => self.start_segment(append),
        };
        let bytes = self.segments.get_mut(&name).expect("just found or made");
        bytes.extend_from_slice(&append.records);
        self.log_id = Some(append.log_id);
        self.look_again();
        Ok(append.after)
    }

    fn start_segment(&mut self, append: &Append) -> SegmentName {
        self.close_segment();
        let (log_id, epoch) = (append.log_id, append.epoch);
        let header = SegmentHeader { log_id, epoch, first: append.first, previous: append.previous };
        self.segments.insert(header.name(), header.to_bytes());
        header.name()
    }

    fn close_segment(&mut self) {
        let (size, last) = (self.leaves.len() as u64, self.leaves.last().copied());
        let Some((name, bytes)) = self.segments.iter_mut().next_back() else { return };
        let closed = segments::records(bytes).last().is_some_and(|(_, record)| record.kind == RecordKind::Footer);
        if !closed && let Some(last) = last {
            let footer = Footer { first: name.first, size, last, content: Digest::of(bytes) };
            Record::new(RecordKind::Footer, footer.to_bytes()).write_to(bytes);
        }
    }

    /// The segments after that one.
    pub fn list(&self, after: Option<SegmentName>) -> Vec<SegmentInfo> {
        let listed = self.segments.iter().filter(|(name, _)| after.is_none_or(|after| **name > after));
        listed.map(|(name, bytes)| SegmentInfo { name: *name, length: bytes.len() as u64 }).collect()
    }

    /// Bytes of a segment.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn read(&self, name: SegmentName, offset: u64, length: usize) -> Result<Vec<u8>, HostError> {
        let bytes = self.segments.get(&name).ok_or(HostError::NotFound)?;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        Ok(rest[..length.min(rest.len())].to_vec())
    }

    /// The segment that begins with the newest snapshot.
    pub fn snapshot(&self) -> Option<SegmentName> {
        let begins = |bytes: &[u8]| bytes.get(SegmentHeader::LEN..).is_some_and(begins_with_snapshot);
        self.segments.iter().rev().find(|(_, bytes)| begins(bytes)).map(|(name, _)| *name)
    }

    /// Sets aside what the last segment holds from there on.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn quarantine(&mut self, name: SegmentName, offset: u64) -> Result<(), HostError> {
        if self.segments.last_key_value().is_none_or(|(last, _)| *last != name) {
            return Err(HostError::NotFound);
        }
        self.edit(|segments| match offset {
            0 => drop(segments.remove(&name)),
            end => segments.get_mut(&name).expect("just found").truncate(end as usize),
        });
        Ok(())
    }

    /// Drops the segments that hold only events before that one; their hashes are kept.
    pub fn prune(&mut self, below: Sequence) {
        let names: Vec<SegmentName> = self.segments.keys().copied().collect();
        for (name, next) in names.iter().zip(names.iter().skip(1)).filter(|(_, next)| next.first <= below) {
            self.segments.remove(name);
            self.dropped = self.leaves[..next.first.0 as usize].to_vec();
        }
        self.look_again();
    }

    /// A proof.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Node>, HostError> {
        inclusion_proof(&self.leaves[..], index, size).map_err(|_| HostError::NotFound)
    }

    /// A proof.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn consistency(&self, old: u64, new: u64) -> Result<Vec<Node>, HostError> {
        consistency_proof(&self.leaves[..], old, new).map_err(|_| HostError::NotFound)
    }
}

fn begins_with_snapshot(records: &[u8]) -> bool {
    RecordViews::of(records).next().is_some_and(|record| record.kind == RecordKind::Snapshot)
}
