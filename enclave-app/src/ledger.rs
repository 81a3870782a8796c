//! The ledger: the one place that appends to the audit log.
//!
//! Deciding a request, giving its event a place in the chain and applying it to the key state is one short critical section
//! ([`Ledger::decide`]); so history is one line, and no allowance is granted twice. A single task then seals what has come
//! together, sends it to the parent, and tells each waiter when its event is durable ([`Recorded::persisted`]).
//!
//! A sealed batch is never withdrawn: the same bytes are sent again until they are acknowledged. Whoever gives up waiting may
//! find the event in the log all the same; allowances are over-, never under-counted.

mod head;
mod refusals;
mod resume;
mod writer;

pub use head::{Entry, Recorded};
pub use refusals::{Refusal, RefusalMeter};
pub use resume::resume;
pub use writer::{LedgerFatal, LedgerWriter, Store};

use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use transcode_confidential::{
    audit::{Chain, EventDraft, LogState},
    fold::{Fold, SnapshotError},
    ids::LogId,
    keys::{KeyError, KeyTable},
    time::{Clock, Timestamp},
};

use self::head::Head;
use crate::lock::{Mutex, MutexGuard, PoisonError};

/// Why an event is not on the record, as far as its caller can know.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The record cannot be kept now, or not in time.
    #[error("the audit record cannot be kept now")]
    Unavailable,
    /// The request is refused; nothing was recorded.
    #[error(transparent)]
    Refused(#[from] KeyError),
    /// The state cannot be written down.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Whether events are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Availability {
    Open,
    Interrupted,
    Closed,
}

/// A handle to the ledger.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    log_id: LogId,
    head: Mutex<Head>,
    wake: Notify,
    /// Room for events that are not durable yet.
    room: Arc<Semaphore>,
    room_for: u32,
    availability: watch::Sender<Availability>,
    persisted: watch::Sender<LogState>,
    clock: Arc<dyn Clock>,
    wait: Duration,
}

/// How much may wait, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long a caller waits for room, and then for its event to be durable.
    pub wait: Duration,
    /// Room for events that are not durable yet.
    pub backlog: u32,
}

impl Ledger {
    /// Continues a log at the given head and state. Events carry `enclave_id` unless they bring one.
    pub fn new(
        (log_id, enclave_id): (LogId, String),
        chain: Chain,
        fold: Fold,
        clock: Arc<dyn Clock>,
        patience: Patience,
    ) -> Self {
        let state = chain.state();
        Self(Arc::new(Shared {
            log_id,
            head: Mutex::new(Head::new(enclave_id, chain, fold)),
            wake: Notify::new(),
            room: Arc::new(Semaphore::new(patience.backlog as usize)),
            room_for: patience.backlog,
            availability: watch::Sender::new(Availability::Open),
            persisted: watch::Sender::new(state),
            clock,
            wait: patience.wait,
        }))
    }

    /// The log.
    pub fn log_id(&self) -> LogId {
        self.0.log_id
    }

    /// Decides upon the key state, and puts the event that follows onto the log: one critical section.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] with the decision's own error; [`LedgerError::Unavailable`] where the log takes no events
    /// now. Nothing was recorded then.
    pub async fn decide<F>(&self, decide: F) -> Result<Recorded, LedgerError>
    where
        F: FnOnce(&KeyTable, Timestamp) -> Result<Entry, KeyError> + Send,
    {
        let room = match Arc::clone(&self.0.room).try_acquire_owned() {
            Ok(room) if self.is_available() => room,
            // On the heap: a future that is hardly ever needed would make that of every caller larger.
            _ => Box::pin(self.wait_for_room()).await?,
        };
        self.place(decide, Some(room))
    }

    async fn wait_for_room(&self) -> Result<OwnedSemaphorePermit, LedgerError> {
        let deadline = tokio::time::Instant::now() + self.0.wait;
        let mut availability = self.0.availability.subscribe();
        let open = availability.wait_for(|state| *state != Availability::Interrupted);
        match tokio::time::timeout_at(deadline, open).await {
            Ok(Ok(state)) if *state == Availability::Open => {}
            _ => return Err(LedgerError::Unavailable),
        }
        let room = Arc::clone(&self.0.room).acquire_owned();
        let room = tokio::time::timeout_at(deadline, room).await;
        room.ok().and_then(Result::ok).ok_or(LedgerError::Unavailable)
    }

    /// As [`Ledger::decide`], without waiting for room or for the parent: for what takes something away and releases nothing.
    /// It takes effect at once, and is durable when [`Recorded::persisted`] says so.
    ///
    /// # Errors
    /// [`LedgerError::Refused`].
    pub fn decide_at_once<F>(&self, decide: F) -> Result<Recorded, LedgerError>
    where
        F: FnOnce(&KeyTable, Timestamp) -> Result<Entry, KeyError>,
    {
        self.place(decide, None)
    }

    /// Records an event that asks for no decision.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`].
    pub async fn record(&self, entry: Entry) -> Result<Recorded, LedgerError> {
        self.decide(|_, _| Ok(entry)).await
    }

    /// Records an event where there is plenty of room, else drops it: for what an attacker could make many of.
    pub fn record_if_idle(&self, entry: Entry) -> bool {
        let plenty = self.0.room.available_permits() > self.0.room_for as usize / 2;
        let room = Arc::clone(&self.0.room).try_acquire_owned().ok().filter(|_| plenty);
        room.is_some_and(|room| self.place(|_, _| Ok(entry), Some(room)).is_ok())
    }

    /// Looks at the key state.
    pub fn with_keys<T>(&self, look: impl FnOnce(&KeyTable, Timestamp) -> T) -> T {
        let now = self.0.clock.now();
        look(self.head().fold().keys(), now)
    }

    /// Looks at the whole state that the log comes to.
    pub fn with_fold<T>(&self, look: impl FnOnce(&Fold, Timestamp) -> T) -> T {
        let now = self.0.clock.now();
        look(self.head().fold(), now)
    }

    /// As [`Ledger::decide_at_once`], for a decision that needs the whole state and has errors of its own.
    ///
    /// # Errors
    /// Those of `decide`, and [`LedgerError`].
    pub fn decide_on_log<F, E>(&self, decide: F) -> Result<Recorded, E>
    where
        F: FnOnce(&Fold, Timestamp) -> Result<Entry, E>,
        E: From<LedgerError>,
    {
        let mut head = self.head();
        let now = self.0.clock.now();
        let entry = decide(head.fold(), now)?;
        let recorded = head.place(entry, now, None, self.0.wait)?;
        drop(head);
        self.0.wake.notify_one();
        Ok(recorded)
    }

    /// Places events that ask for no decision, so that they share a seal as far as a batch has room. Gives the first.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] where there is none; [`LedgerError::Refused`].
    pub fn place_together(&self, entries: Vec<Entry>) -> Result<Recorded, LedgerError> {
        let mut head = self.head();
        let now = self.0.clock.now();
        let mut first = None;
        for entry in entries {
            let recorded = head.place(entry, now, None, self.0.wait)?;
            first.get_or_insert(recorded);
        }
        drop(head);
        self.0.wake.notify_one();
        first.ok_or(LedgerError::Unavailable)
    }

    /// Writes the whole state down. A segment begins with the event, and a boot can begin there. Nothing else is placed
    /// meanwhile, which grows with the state. `complete` says in the event who asked for it.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] while the log takes no events; [`LedgerError::Snapshot`].
    pub fn take_snapshot(&self, complete: impl FnOnce(EventDraft) -> EventDraft) -> Result<Recorded, LedgerError> {
        if !self.is_available() {
            return Err(LedgerError::Unavailable);
        }
        let mut head = self.head();
        let now = self.0.clock.now();
        let recorded = head.place_snapshot(self.0.log_id, complete, now, self.0.wait)?;
        drop(head);
        self.0.wake.notify_one();
        Ok(recorded)
    }

    /// The durable state of the log.
    pub fn persisted(&self) -> LogState {
        *self.0.persisted.borrow()
    }

    /// Follows the durable state of the log.
    pub fn watch_persisted(&self) -> watch::Receiver<LogState> {
        self.0.persisted.subscribe()
    }

    /// Number of events placed, of which the last may not be durable yet.
    pub fn placed_size(&self) -> u64 {
        self.head().size()
    }

    /// How much room for events that are not durable yet is held, and how much there is.
    pub fn backlog(&self) -> (u64, u64) {
        let limit = self.0.room_for as usize;
        (limit.saturating_sub(self.0.room.available_permits()) as u64, limit as u64)
    }

    /// Whether events are accepted now.
    pub fn is_available(&self) -> bool {
        *self.0.availability.borrow() == Availability::Open
    }

    /// Takes no further events; those placed are still written. What only takes away is still in force at once, and not known
    /// to be durable.
    pub fn close(&self) {
        // Under the lock: whoever places an event has either done so before, or sees this.
        let head = self.head();
        self.0.availability.send_replace(Availability::Closed);
        drop(head);
        self.0.wake.notify_one();
    }

    fn place<F>(&self, decide: F, room: Option<OwnedSemaphorePermit>) -> Result<Recorded, LedgerError>
    where
        F: FnOnce(&KeyTable, Timestamp) -> Result<Entry, KeyError>,
    {
        let mut head = self.head();
        // Asked anew: it may have been closed since there was room.
        if room.is_some() && *self.0.availability.borrow() == Availability::Closed {
            return Err(LedgerError::Unavailable);
        }
        let now = self.0.clock.now();
        let entry = decide(head.fold().keys(), now)?;
        let recorded = head.place(entry, now, room, self.0.wait)?;
        drop(head);
        self.0.wake.notify_one();
        Ok(recorded)
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.0.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
