//! The open log: what can be done with it as long as the disk does what it is told.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
};

use tracing::{info, warn};
use transcode_confidential::{
    audit::{
        segment::{SegmentHeader, SegmentName},
        tree::{Node, ProofError, consistency_proof, inclusion_proof},
    },
    ids::{LogId, Sequence},
    protocol::host::{Durable, HostError, READ_LIMIT, SEGMENTS_LIMIT, SegmentInfo},
    time::Timestamp,
};

use super::{
    aging::Aging,
    batch::{Batch, Head},
    disk::{DiskFile, read_full},
    files::Files,
    hashes::HashIndex,
    place::Place,
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

/// What was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quarantined {
    Nothing,
    Tail,
    /// The whole segment: another one is the last now, and the log must be opened anew to see how that one ends.
    Segment,
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

    /// Segments after the given one.
    pub(super) fn segments(&self, after: Option<SegmentName>) -> Vec<SegmentInfo> {
        let later = self.segments.iter().filter(|(name, _)| after.is_none_or(|after| **name > after));
        later.take(SEGMENTS_LIMIT).map(|(&name, &length)| SegmentInfo { name, length }).collect()
    }

    /// Bytes of a segment.
    pub(super) fn read(&self, name: SegmentName, offset: u64, length: usize) -> Result<Vec<u8>, HostError> {
        let end = *self.segments.get(&name).ok_or(HostError::NotFound)?;
        let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(READ_LIMIT).min(left)];
        let read = match self.last.as_ref().filter(|last| last.name == name) {
            Some(last) => read_full(last.file.as_ref(), &mut bytes, offset),
            None => self.read_inner(name, &mut bytes, offset),
        };
        match read {
            Ok(count) => {
                bytes.truncate(count);
                Ok(bytes)
            }
            Err(error) => {
                warn!(segment = %name, offset, %error, "a segment cannot be read");
                Err(HostError::StorageFailed)
            }
        }
    }

    fn read_inner(&self, name: SegmentName, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = match self.reading.take().filter(|(reading, _)| *reading == name) {
            Some((_, file)) => file,
            None => self.files.open_at(name, self.aging.place(name))?,
        };
        let count = read_full(file.as_ref(), bytes, offset)?;
        *self.reading.borrow_mut() = Some((name, file));
        Ok(count)
    }

    /// The segment that begins with the newest snapshot.
    pub(super) fn snapshot(&self) -> Option<SegmentName> {
        self.snapshots.last().copied()
    }

    /// Sets aside the tail of the last segment; done already where there is none. Only where what is settled ends exactly at
    /// `offset`: sealed batches are never set aside.
    pub(super) fn quarantine(
        &mut self,
        name: SegmentName,
        offset: u64,
        now: Timestamp,
    ) -> Result<Quarantined, Unstored> {
        let last = self.last.as_mut().filter(|last| last.name == name).ok_or(Unstored::Refused(HostError::NotFound))?;
        let refuse = Err(Unstored::Refused(HostError::Refused));
        // A segment without a seal holds nothing but its header, if that: it goes as a whole.
        let whole = last.settled == 0;
        match offset {
            _ if whole && offset <= SegmentHeader::LEN as u64 => {}
            _ if whole || offset != last.settled => return refuse,
            _ if offset == last.length => return Ok(Quarantined::Nothing),
            _ => {}
        }
        let keep = last.settled;
        warn!(segment = %name, offset = keep, bytes = last.length - keep, "setting aside what is not sealed");
        self.files.set_aside(name, last.file.as_ref(), keep, now)?;
        if whole {
            self.files.disk.remove(&self.files.at(name, Place::WRITTEN))?;
            self.files.disk.sync_directory(&self.files.directory)?;
            return Ok(Quarantined::Segment);
        }
        last.length = keep;
        self.segments.insert(name, keep);
        Ok(Quarantined::Tail)
    }

    /// Drops the segments before the one that begins with `below`. Gives how many there were.
    ///
    /// 1. The hashes of what will be missing are made durable. A crash here leaves everything.
    /// 2. The segments are removed, the oldest first. A crash here leaves the newest of them: whoever reads the log passes over
    ///    them, and the enclave asks again.
    /// 3. The directory is synced. From here on they do not come back.
    pub(super) fn prune(&mut self, below: Sequence) -> Result<usize, Unstored> {
        let before: Vec<SegmentName> = self.segments.keys().copied().take_while(|name| name.first < below).collect();
        if before.is_empty() {
            return Ok(0);
        }
        if !self.segments.keys().any(|name| name.first == below) {
            return Err(Unstored::Refused(HostError::NotFound));
        }
        self.hashes.keep()?;
        self.reading.take();
        let archived = before.iter().any(|name| self.aging.place(*name).archived);
        for name in &before {
            self.files.disk.remove(&self.files.at(*name, self.aging.place(*name)))?;
            self.segments.remove(name);
            self.snapshots.remove(name);
            self.aging.forget(*name);
        }
        for archived in [false, true].into_iter().take(1 + usize::from(archived)) {
            self.files.disk.sync_directory(self.files.directory_of(Place { archived, packed: false }))?;
        }
        info!(segments = before.len(), below = below.0, "dropped segments that the enclave gave up");
        Ok(before.len())
    }

    /// An inclusion proof.
    pub(super) fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Node>, HostError> {
        self.proof(size, || inclusion_proof(&self.hashes, index, size))
    }

    /// A consistency proof.
    pub(super) fn consistency(&self, old: u64, new: u64) -> Result<Vec<Node>, HostError> {
        self.proof(new, || consistency_proof(&self.hashes, old, new))
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

    fn proof(&self, size: u64, make: impl FnOnce() -> Result<Vec<Node>, ProofError>) -> Result<Vec<Node>, HostError> {
        if size > self.head.durable.size {
            return Err(HostError::NotFound);
        }
        make().map_err(|_| HostError::NotFound)
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

    fn read_range(&self, name: SegmentName, start: u64, length: usize) -> Result<Vec<u8>, HostError> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let more = self.read(name, start + bytes.len() as u64, length - bytes.len())?;
            if more.is_empty() {
                return Err(HostError::StorageFailed);
            }
            bytes.extend(more);
        }
        Ok(bytes)
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
