use thiserror::Error;

use super::{
    event::{AuditEvent, EventDraft},
    leaf::{LeafError, Place, encode, leaf_hash},
    seal::LogState,
    tree::{BatchTree, Frontier},
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
    /// The encoded leaves, in order.
    pub leaves: Vec<Vec<u8>>,
    /// Their hashes.
    pub hashes: Vec<LeafHash>,
    /// Position of the first.
    pub first: Sequence,
    before: Frontier,
}

impl Batch {
    /// The tree edge, for inclusion proofs of these events.
    pub fn tree(&self) -> BatchTree {
        BatchTree::new(&self.before, &self.hashes)
    }

    /// Number of events.
    pub const fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether there is no event in it.
    pub const fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }
}

impl Chain {
    /// The head of a log without events.
    pub const fn new() -> Self {
        Self { epoch: Epoch(0), last: LeafHash::ZERO, time: Timestamp(0), tree: Frontier::new() }
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
        Batch { leaves: Vec::new(), hashes: Vec::new(), first: Sequence(self.size()), before: self.tree.clone() }
    }

    /// Appends a draft; the event's time is `now` or that of the event before, whichever is later.
    ///
    /// # Errors
    /// [`ChainError::Leaf`] or [`ChainError::Full`]; the chain is unchanged then.
    pub fn append(&mut self, draft: EventDraft, now: Timestamp) -> Result<(AuditEvent, Vec<u8>), ChainError> {
        if self.size() == u64::MAX {
            return Err(ChainError::Full);
        }
        let place =
            Place { sequence: Sequence(self.size()), epoch: self.epoch, time: now.max(self.time), previous: self.last };
        let leaf = encode(&place, &draft)?;
        let hash = leaf_hash(&leaf);
        self.advance(&place, hash);
        Ok((AuditEvent::placed(place, draft, hash), leaf))
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
        let (event, leaf) = self.append(draft, now)?;
        batch.leaves.push(leaf);
        batch.hashes.push(event.hash);
        Ok(event)
    }

    /// Takes in an event that somebody else appended, after checking that it follows on this head.
    ///
    /// # Errors
    /// The first [`ChainError`] that applies; the chain is unchanged then.
    pub fn follow(&mut self, event: &AuditEvent) -> Result<(), ChainError> {
        let expected = Sequence(self.size());
        if event.sequence != expected {
            return Err(ChainError::Sequence { expected, found: event.sequence });
        }
        if event.previous != self.last {
            return Err(ChainError::Previous(event.sequence));
        }
        if event.time < self.time {
            return Err(ChainError::Time(event.sequence));
        }
        if event.epoch < self.epoch {
            return Err(ChainError::Epoch(event.sequence));
        }
        let place = Place { sequence: expected, epoch: event.epoch, time: event.time, previous: event.previous };
        self.advance(&place, event.hash);
        Ok(())
    }

    fn advance(&mut self, place: &Place, hash: LeafHash) {
        self.epoch = place.epoch;
        self.time = place.time;
        self.last = hash;
        self.tree.push(hash);
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}
