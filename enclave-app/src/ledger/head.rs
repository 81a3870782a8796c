use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, watch};
use transcode_confidential::{
    audit::{
        AuditEvent, AuditEventType, Batch, Chain, EventBody, EventDraft, LogState, Receipt, Seal,
        segment::{Record, RecordKind},
        tree::BatchTree,
    },
    fold::{Fold, Snapshot},
    ids::{Digest, LogId},
    keys::KeyError,
    protocol::host::APPEND_LIMIT,
    time::Timestamp,
};

use super::LedgerError;

/// What closes a batch early: half of what one request to the parent may hold.
const BATCH_BYTES: usize = APPEND_LIMIT / 2;
/// The same for the number of records, whose heads come on top.
const BATCH_RECORDS: usize = 4096;

/// An event to be placed, with the records that its body names.
#[derive(Debug)]
pub struct Entry {
    /// The event.
    pub draft: EventDraft,
    /// The records, in the order in which the body names them.
    pub records: Vec<Record>,
}

impl From<EventDraft> for Entry {
    fn from(draft: EventDraft) -> Self {
        Self { draft, records: Vec::new() }
    }
}

/// An event that has its place in the log. Durable it is only when [`Recorded::persisted`] says so.
#[must_use = "nothing may be released before the event is durable"]
pub struct Recorded {
    /// The event.
    pub event: AuditEvent,
    fate: watch::Receiver<Fate>,
    wait: Duration,
}

impl Recorded {
    /// Waits until the event is durable.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] where that takes too long. The event may be in the log all the same.
    pub async fn persisted(self) -> Result<(AuditEvent, Receipt), LedgerError> {
        let Self { event, mut fate, wait } = self;
        // A batch that is given up drops its end.
        let durable = match tokio::time::timeout(wait, fate.wait_for(Option::is_some)).await {
            Ok(Ok(fate)) => fate.clone(),
            _ => None,
        };
        let durable = durable.ok_or(LedgerError::Unavailable)?;
        let path = durable.tree.path(event.sequence.0).unwrap_or_default();
        let receipt = Receipt { seal: durable.seal, sequence: event.sequence, leaf: event.hash, path };
        Ok((event, receipt))
    }
}

/// What all the events of a batch wait for; nothing as long as it is not durable.
pub(super) type Fate = Option<Arc<DurableBatch>>;

/// A batch on the parent's disk: what receipts for its events are made from.
pub(super) struct DurableBatch {
    pub(super) seal: Seal,
    pub(super) tree: BatchTree,
}

/// Whoever waits for the events of a batch, and the room that these take until they are durable.
pub(super) struct Waiters {
    pub(super) fate: watch::Sender<Fate>,
    room: Option<OwnedSemaphorePermit>,
}

impl Waiters {
    fn none() -> Self {
        Self { fate: watch::Sender::new(None), room: None }
    }

    /// One more, with its room.
    fn join(&mut self, room: Option<OwnedSemaphorePermit>) -> watch::Receiver<Fate> {
        match (&mut self.room, room) {
            (Some(all), Some(one)) => all.merge(one),
            (all, Some(one)) => *all = Some(one),
            (_, None) => {}
        }
        self.fate.subscribe()
    }
}

/// A batch that is complete and may be sealed.
pub(super) struct ClosedBatch {
    pub(super) batch: Batch,
    pub(super) previous: transcode_confidential::ids::LeafHash,
    pub(super) state: LogState,
    /// For each event the records beside it.
    pub(super) records: Vec<Vec<Record>>,
    pub(super) waiters: Waiters,
}

/// Chain and state, and the events not yet sealed.
pub(super) struct Head {
    enclave_id: String,
    chain: Chain,
    fold: Fold,
    open: OpenBatch,
    closed: VecDeque<ClosedBatch>,
}

struct OpenBatch {
    batch: Batch,
    previous: transcode_confidential::ids::LeafHash,
    records: Vec<Vec<Record>>,
    waiters: Waiters,
    /// Bytes of the records beside the entries.
    beside: usize,
    count: usize,
}

impl OpenBatch {
    fn at(chain: &Chain) -> Self {
        Self {
            batch: chain.begin_batch(),
            previous: chain.last(),
            records: Vec::new(),
            waiters: Waiters::none(),
            beside: 0,
            count: 0,
        }
    }
}

impl Head {
    pub(super) fn new(enclave_id: String, chain: Chain, fold: Fold) -> Self {
        let open = OpenBatch::at(&chain);
        Self { enclave_id, chain, fold, open, closed: VecDeque::new() }
    }

    pub(super) const fn fold(&self) -> &Fold {
        &self.fold
    }

    pub(super) const fn size(&self) -> u64 {
        self.chain.size()
    }

    /// Writes down the state before it, and places the event that says so at the start of a batch: the parent starts a segment
    /// with it.
    pub(super) fn place_snapshot(
        &mut self,
        log_id: LogId,
        complete: impl FnOnce(EventDraft) -> EventDraft,
        now: Timestamp,
        wait: Duration,
    ) -> Result<Recorded, LedgerError> {
        self.close_batch();
        let parts = Snapshot::encode(log_id, &self.chain, &self.fold)?;
        let digests = parts.iter().map(|part| Digest::of(part)).collect();
        let draft = EventDraft::new(AuditEventType::LogMaintained, "the whole state was written down")
            .body(EventBody::Snapshot { parts: digests });
        let records = parts.into_iter().map(|part| Record::new(RecordKind::Snapshot, part)).collect();
        self.place(Entry { draft: complete(draft), records }, now, None, wait)
    }

    /// Places an event and applies it to the state.
    pub(super) fn place(
        &mut self,
        entry: Entry,
        now: Timestamp,
        room: Option<OwnedSemaphorePermit>,
        wait: Duration,
    ) -> Result<Recorded, LedgerError> {
        let Entry { mut draft, records } = entry;
        draft.enclave_id.get_or_insert_with(|| self.enclave_id.clone());
        let beside: usize = records.iter().map(|record| record.payload.len()).sum();
        // The largest leaf and what lies beside it must fit what is left of the batch.
        if self.open.batch.leaf_bytes() + self.open.beside + beside > BATCH_BYTES
            || self.open.count + records.len() + 2 > BATCH_RECORDS
        {
            self.close_batch();
        }
        let event = self.chain.append_to(&mut self.open.batch, draft, now).map_err(KeyError::from)?;
        if let Err(error) = self.fold.apply(&event, &records) {
            // Decided upon this very state, in this very critical section.
            tracing::error!(%error, "an event that was just decided contradicts the state");
        }
        self.open.beside += beside;
        self.open.count += records.len() + 1;
        self.open.records.push(records);
        let fate = self.open.waiters.join(room);
        Ok(Recorded { event, fate, wait })
    }

    /// The next batch to seal, or `None` where no event waits.
    pub(super) fn next_batch(&mut self) -> Option<ClosedBatch> {
        if self.closed.is_empty() {
            self.close_batch();
        }
        self.closed.pop_front()
    }

    fn close_batch(&mut self) {
        if self.open.batch.is_empty() {
            return;
        }
        let OpenBatch { batch, previous, records, waiters, .. } =
            std::mem::replace(&mut self.open, OpenBatch::at(&self.chain));
        self.closed.push_back(ClosedBatch { batch, previous, state: self.chain.state(), records, waiters });
    }
}
