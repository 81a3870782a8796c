//! The open log, and what is written to it, as long as the disk does what it is told.
//!
//! What is read from it, and what leaves it, stand in files of their own.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
};

use tracing::{info, warn};
use transcode_confidential::{
    audit::segment::SegmentName,
    ids::LogId,
    protocol::host::{Durable, HostError},
    time::Timestamp,
};

use super::{
    aging::Aging,
    batch::{Batch, Head},
    disk::DiskFile,
    files::Files,
    hashes::HashIndex,
    reserve::Reserve,
    segment::{LastSegment, Unwritten},
};
use crate::{config::StoreConfig, metrics::Metrics};

/// Batches are joined into one write up to this many bytes.
pub(super) const JOIN_LIMIT: usize = 4 * 1024 * 1024;

/// An open log.
#[derive(Debug)]
pub(super) struct OpenLog {
    pub(super) files: Files,
    pub(super) settings: StoreConfig,
    pub(super) head: Head,
    /// Length of every segment, the tail of the last included.
    pub(super) segments: BTreeMap<SegmentName, u64>,
    pub(super) last: Option<LastSegment>,
    /// The batch that was stored last: segment, start, end.
    pub(super) last_batch: Option<(SegmentName, u64, u64)>,
    pub(super) hashes: HashIndex,
    pub(super) reserve: Reserve,
    /// The segments that begin with a snapshot under a seal.
    pub(super) snapshots: BTreeSet<SegmentName>,
    /// The segments that are old.
    pub(super) aging: Aging,
    /// The segment that was read last and is not the last one: who reads a packed one reads on.
    pub(super) reading: RefCell<Option<(SegmentName, Box<dyn DiskFile>)>>,
    /// Segments with damage.
    pub(super) damaged: u64,
    /// Whether a batch was refused because the disk is full and none was stored since.
    pub(super) refused_full: bool,
}

/// What became of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Appended(Durable),
    /// It was there already.
    Again(Durable),
}

/// The disk failed. The log must be opened anew.
#[derive(Debug)]
pub(super) struct Broken;

impl OpenLog {
    /// Tells where its segments are.
    pub(super) fn count(&self, metrics: &Metrics) {
        let (packed, archived) = self.aging.counts();
        metrics.store_segments.set(self.segments.len() as u64);
        metrics.store_segments_packed.set(packed);
        metrics.store_segments_archived.set(archived);
        metrics.store_aging_failing.set(self.aging.is_failing().into());
    }

    /// Which log, and how far.
    pub(super) fn durable(&self) -> Option<(LogId, Durable)> {
        self.head.log.map(|log| (log, self.head.durable))
    }

    /// Stores batches in their order, joining those that follow on each other into one write and one sync, and says of each
    /// what became of it. What comes after a batch that was refused does not follow and is refused as well.
    pub(super) fn append(
        &mut self,
        batches: &[Batch],
        mut answer: impl FnMut(Result<Stored, HostError>),
    ) -> Result<(), Broken> {
        let mut rest = batches;
        while let Some(first) = rest.first() {
            if !first.follows(&self.head) {
                answer(self.again(first).map(Stored::Again));
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let count = joined(rest, first);
            let (group, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            rest = after;
            match self.write(group) {
                Ok(()) => group.iter().for_each(|batch| answer(Ok(Stored::Appended(batch.after)))),
                Err(Unstored::Refused(reason)) => {
                    group.iter().chain(rest).for_each(|_| answer(Err(reason)));
                    return Ok(());
                }
                Err(Unstored::Broken(problem)) => {
                    warn!(error = %problem, "the disk failed; the store must be opened anew");
                    group.iter().chain(rest).for_each(|_| answer(Err(HostError::StorageFailed)));
                    return Err(Broken);
                }
            }
        }
        Ok(())
    }

    /// What time alone brings: closes a segment that is old enough, packs and moves the older ones, takes the reserve back.
    pub(super) fn tick(&mut self, now: Timestamp) -> Result<(), Broken> {
        self.reserve.restore(self.files.disk.as_ref());
        let last = self.last.as_ref().map(|last| last.name);
        if self.aging.tick(&self.files, &self.settings, last, now).is_some() {
            self.reading.take();
        }
        let due = self.last.as_ref().is_some_and(|last| {
            !last.closed && !last.has_tail() && last.settled > 0 && last.age() >= self.settings.segment_age
        });
        match if due { self.close() } else { Ok(()) } {
            Ok(()) | Err(Unstored::Refused(_)) => Ok(()),
            Err(Unstored::Broken(problem)) => {
                warn!(error = %problem, "the disk failed; the store must be opened anew");
                Err(Broken)
            }
        }
    }

    /// A batch that does not follow may be the last one once more: the acknowledgement was lost. Its bytes decide.
    fn again(&self, batch: &Batch) -> Result<Durable, HostError> {
        let (name, start, end) = self.last_batch.ok_or(HostError::OutOfOrder)?;
        let same_place = self.durable() == Some((batch.log_id, batch.after)) && end - start == batch.bytes.len() as u64;
        if same_place && self.read_range(name, start, batch.bytes.len())? == batch.bytes {
            Ok(batch.after)
        } else {
            Err(HostError::OutOfOrder)
        }
    }

    /// Writes a group of batches, on the reserve where the disk is full and the enclave has been told so.
    fn write(&mut self, group: &[Batch]) -> Result<(), Unstored> {
        let mut result = self.write_once(group);
        if matches!(result, Err(Unstored::Refused(HostError::StorageFull)))
            && self.refused_full
            && self.reserve.is_held()
        {
            warn!("the disk is full; using up the reserve");
            self.reserve.release(self.files.disk.as_ref())?;
            result = self.write_once(group);
        }
        self.refused_full = matches!(result, Err(Unstored::Refused(HostError::StorageFull)));
        result
    }

    fn write_once(&mut self, group: &[Batch]) -> Result<(), Unstored> {
        let (Some(first), Some(newest)) = (group.first(), group.last()) else { return Ok(()) };
        let bytes = match group {
            [only] => Cow::Borrowed(&only.bytes),
            _ => Cow::Owned(group.iter().map(|batch| batch.bytes.as_slice()).collect::<Vec<_>>().concat()),
        };
        let segment = match self.segment_for(first)? {
            Some((segment, place)) => {
                segment.append(&bytes, place)?;
                segment
            }
            None => self.last.insert(LastSegment::start(&self.files, &first.header(), &bytes)?),
        };
        let (name, length, end) = (segment.name, segment.length, segment.settled);
        self.segments.insert(name, length);
        if first.snapshot {
            self.snapshots.insert(name);
        }
        self.last_batch = Some((name, end - newest.bytes.len() as u64, end));
        self.head = newest.head();
        for batch in group {
            for (leaf, position) in batch.leaves.iter().zip(batch.first.0..) {
                self.hashes.place(position, *leaf);
            }
        }
        Ok(())
    }

    /// The segment that a batch goes into, and where; `None` where it starts a new one, the old one being closed by then.
    fn segment_for(&mut self, batch: &Batch) -> Result<Option<(&mut LastSegment, u64)>, Unstored> {
        let Some(last) = self.last.as_ref() else { return Ok(None) };
        if last.closed && !last.has_tail() {
            return Ok(None);
        }
        let same_epoch = last.name.epoch == batch.epoch;
        let place = if last.closed { None } else { last.place_for(&batch.bytes)? };
        let Some(place) = place.filter(|_| same_epoch || !last.has_tail()) else {
            warn!(segment = %last.name, "a batch came while an unsealed tail lies in its place");
            return Err(Unstored::Refused(HostError::Refused));
        };
        // A tail that is the batch's own beginning is finished where it lies, however long and old the segment is.
        let has_room = last.settled < self.settings.segment_size && last.age() < self.settings.segment_age;
        if !(last.has_tail() || same_epoch && has_room && !batch.snapshot) {
            self.close()?;
            return Ok(None);
        }
        Ok(self.last.as_mut().map(|last| (last, place)))
    }

    fn close(&mut self) -> Result<(), Unstored> {
        let Some(last) = &mut self.last else { return Ok(()) };
        last.close(self.head.durable)?;
        self.segments.insert(last.name, last.length);
        self.aging.closed(last.name, None);
        info!(segment = %last.name, bytes = last.length, "closed a segment");
        Ok(())
    }
}

/// Why a group was not stored.
#[derive(Debug)]
pub(super) enum Unstored {
    /// Nothing changed, and the store goes on.
    Refused(HostError),
    /// The disk failed.
    Broken(io::Error),
}

impl From<Unwritten> for Unstored {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::Full => Self::Refused(HostError::StorageFull),
            Unwritten::Failed(error) => Self::Broken(error),
        }
    }
}

impl From<io::Error> for Unstored {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// How many of the batches can be written together: each follows on the one before, in the same epoch, within the limit.
fn joined(batches: &[Batch], first: &Batch) -> usize {
    let mut head = first.head();
    let mut bytes = first.bytes.len();
    let follow = batches.iter().skip(1).take_while(|batch| {
        bytes += batch.bytes.len();
        let joins = batch.epoch == head.epoch && !batch.snapshot && batch.follows(&head) && bytes <= JOIN_LIMIT;
        head = batch.head();
        joins
    });
    1 + follow.count()
}
