use thiserror::Error;

use super::{
    event::{AuditEvent, EventDraft},
    leaf::{LeafError, Place, encode, leaf_hash},
    seal::LogState,
    tree::{BatchTree, Frontier, Node},
};
use crate::{
    ids::{Epoch, LeafHash, Sequence},
    time::Timestamp,
};

/// The head of a log: everything that is needed to append to it or to check what comes next, in bounded memory.
///
/// Sans-I/O: it neither stores events nor reads a clock. [`super::AuditLog`], the enclave's ledger and the offline
/// verifier all move one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    epoch: Epoch,
    last: LeafHash,
    time: Timestamp,
    tree: Frontier,
}

/// Why an event does not follow on a chain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The event cannot be encoded, or the bytes are no event.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// Another position was due.
    #[error("event {found} stands where {expected} is due")]
    Sequence {
        /// The position that was due.
        expected: Sequence,
        /// The one that was found.
        found: Sequence,
    },
    /// The event does not name the event before it.
    #[error("event {0} does not follow on the event before it")]
    Previous(Sequence),
    /// The event's time lies before that of the event before it.
    #[error("event {0} goes back in time")]
    Time(Sequence),
    /// The event's epoch is neither that of the event before it nor a later one.
    #[error("event {0} goes back to an earlier epoch")]
    Epoch(Sequence),
    /// The log is full: 2^64 - 1 events.
    #[error("the log is full")]
    Full,
}

/// Events that are to be sealed together.
#[derive(Debug)]
pub struct Batch {
    /// The hashes of the leaves, in order.
    pub hashes: Vec<LeafHash>,
    /// Position of the first.
    pub first: Sequence,
    /// The leaves, one behind the other.
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    before: Frontier,
    /// The interior nodes that the leaves completed, with their levels: hashed once, and needed again for the proofs.
    made: Vec<(u32, Node)>,
}

impl Batch {
    /// The tree edge, for inclusion proofs of these events.
    pub fn tree(&self) -> BatchTree {
        BatchTree::of(&self.before, &self.hashes, &self.made)
    }

    /// The encoded leaves, in order.
    pub fn leaves(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        self.ends.iter().zip(starts).map(|(&end, start)| self.bytes.get(start..end).unwrap_or_default())
    }

    /// Length of all leaves together, in bytes.
    pub const fn leaf_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of events.
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no event in it.
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl Chain {
    /// The head of a log without events.
    pub const fn new() -> Self {
        Self { epoch: Epoch(0), last: LeafHash::ZERO, time: Timestamp(0), tree: Frontier::new() }
    }

    /// Takes up a head that was stored.
    pub const fn from_parts(epoch: Epoch, last: LeafHash, time: Timestamp, tree: Frontier) -> Self {
        Self { epoch, last, time, tree }
    }

    /// The frontier of the tree.
    pub const fn frontier(&self) -> &Frontier {
        &self.tree
    }

    /// Number of events; also the position of the next.
    pub const fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Epoch of the last event.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Hash of the last event.
    pub const fn last(&self) -> LeafHash {
        self.last
    }

    /// Time of the last event.
    pub const fn time(&self) -> Timestamp {
        self.time
    }

    /// Size, root and last hash: what a seal signs.
    pub fn state(&self) -> LogState {
        LogState { epoch: self.epoch, size: self.size(), root: self.tree.root(), last: self.last }
    }

    /// Opens a later epoch; events appended from here on carry it.
    pub fn open_epoch(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    /// Starts a batch at this head.
    pub fn begin_batch(&self) -> Batch {
        let (hashes, bytes, ends, made) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Batch { hashes, first: Sequence(self.size()), bytes, ends, before: self.tree.clone(), made }
    }

    /// As [`Chain::begin_batch`], in the memory of a batch that is no longer needed.
    pub fn begin_batch_in(&self, batch: &mut Batch) {
        let Batch { hashes, first, bytes, ends, before, made } = batch;
        hashes.clear();
        bytes.clear();
        ends.clear();
        made.clear();
        *first = Sequence(self.size());
        before.clone_from(&self.tree);
    }

    /// Appends a draft; the event's time is `now` or that of the event before, whichever is later.
    ///
    /// # Errors
    /// [`ChainError::Leaf`] or [`ChainError::Full`]; the chain is unchanged then.
    pub fn append(&mut self, draft: EventDraft, now: Timestamp) -> Result<(AuditEvent, Vec<u8>), ChainError> {
        let mut leaf = Vec::with_capacity(256);
        let event = self.place(draft, now, &mut leaf, |_, _| {})?;
        Ok((event, leaf))
    }

    /// Appends a draft to a batch of this chain.
    ///
    /// # Errors
    /// As [`Chain::append`].
    pub fn append_to(
        &mut self,
        batch: &mut Batch,
        draft: EventDraft,
        now: Timestamp,
    ) -> Result<AuditEvent, ChainError> {
        let made = &mut batch.made;
        let event = self.place(draft, now, &mut batch.bytes, |level, node| made.push((level, node)))?;
        batch.ends.push(batch.bytes.len());
        batch.hashes.push(event.hash);
        Ok(event)
    }

    /// Takes in an event that somebody else appended, after checking that it follows on this head.
    ///
    /// # Errors
    /// The first [`ChainError`] that applies; the chain is unchanged then.
    pub fn follow(&mut self, event: &AuditEvent) -> Result<(), ChainError> {
        let (sequence, epoch, time, previous) = (event.sequence, event.epoch, event.time, event.previous);
        let place = Place { sequence, epoch, time, previous };
        self.check(&place)?;
        self.advance(&place, event.hash, |_, _| {});
        Ok(())
    }

    /// Takes in events of one epoch that follow on one another, by their hashes, after checking that the first of them
    /// follows on this head; the last has the time `ends`.
    ///
    /// # Errors
    /// As [`Chain::follow`].
    pub(super) fn follow_run(&mut self, first: &Place, ends: Timestamp, hashes: &[LeafHash]) -> Result<(), ChainError> {
        self.check(first)?;
        if self.size().checked_add(hashes.len() as u64).is_none() {
            return Err(ChainError::Full);
        }
        hashes.iter().for_each(|hash| self.tree.push(*hash));
        (self.epoch, self.time, self.last) = (first.epoch, ends, hashes.last().copied().unwrap_or(self.last));
        Ok(())
    }

    fn check(&self, next: &Place) -> Result<(), ChainError> {
        let (expected, found) = (Sequence(self.size()), next.sequence);
        if found != expected {
            return Err(ChainError::Sequence { expected, found });
        }
        if next.previous != self.last {
            return Err(ChainError::Previous(found));
        }
        if next.time < self.time {
            return Err(ChainError::Time(found));
        }
        if next.epoch < self.epoch {
            return Err(ChainError::Epoch(found));
        }
        if self.size() == u64::MAX {
            return Err(ChainError::Full);
        }
        Ok(())
    }

    /// Encodes a draft at the head, behind whatever `out` holds, and moves the head.
    fn place(
        &mut self,
        draft: EventDraft,
        now: Timestamp,
        out: &mut Vec<u8>,
        made: impl FnMut(u32, Node),
    ) -> Result<AuditEvent, ChainError> {
        if self.size() == u64::MAX {
            return Err(ChainError::Full);
        }
        let place =
            Place { sequence: Sequence(self.size()), epoch: self.epoch, time: now.max(self.time), previous: self.last };
        let start = out.len();
        encode(&place, &(&draft).into(), out)?;
        let hash = leaf_hash(out.get(start..).unwrap_or_default());
        self.advance(&place, hash, made);
        Ok(AuditEvent::placed(place, draft, hash))
    }

    fn advance(&mut self, place: &Place, hash: LeafHash, made: impl FnMut(u32, Node)) {
        self.epoch = place.epoch;
        self.time = place.time;
        self.last = hash;
        self.tree.push_and(hash, made);
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}
