use std::{collections::VecDeque, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    audit::{
        LogState, Seal,
        segment::{RECORD_HEAD, RecordKind, RecordView},
    },
    protocol::{
        host::{APPEND_LIMIT, Append, Durable, HostError, Reply, Request, Welcome},
        metrics::Metric,
    },
    signature::SigningKey,
};
use transport::Endpoint;

use super::{
    Availability, Ledger,
    head::{ClosedBatch, DurableBatch, Waiters},
    resume::resume,
};
use crate::{
    host::{HostFailure, HostLink},
    metrics::Metrics,
};

/// Batches that may be on their way to the parent at the same time.
const WINDOW: usize = 4;
/// Pauses between attempts to reach the parent: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the parent may take to persist a batch before the connection is given up and the batch sent over another one.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// Where the log is kept: the parent, over a session that survives reconnections.
#[derive(Debug, Clone)]
pub struct Store {
    /// The parent's host service.
    pub endpoint: Endpoint,
    /// This boot's session.
    pub session: [u8; 16],
    /// Cancelled when the parent asks the enclave to end.
    pub stop: CancellationToken,
}

/// What only a new boot can repair.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LedgerFatal {
    /// The parent has less than it acknowledged, or something else.
    #[error("the parent lost or changed what it had acknowledged")]
    StoreWentBack,
    /// Another enclave took the session over.
    #[error("another enclave holds the parent's session")]
    Fenced,
}

/// The task that seals batches and sees them to the parent's disk.
pub struct LedgerWriter {
    ledger: Ledger,
    epoch_key: Arc<SigningKey>,
    store: Store,
    links: watch::Sender<Option<Arc<HostLink>>>,
    acknowledged: Durable,
    in_flight: VecDeque<Flight>,
    /// Before the next attempt to connect; grows until something is acknowledged.
    pause: Duration,
    metrics: Arc<Metrics>,
}

/// A sealed batch that is not acknowledged yet.
struct Flight {
    /// What comes before the batch's own records, a snapshot for the most part, in pieces that fit a frame.
    staged: Vec<Arc<Request>>,
    append: Arc<Request>,
    after: Durable,
    state: LogState,
    /// What the waiters are told when it is acknowledged.
    durable: Arc<DurableBatch>,
    waiters: Waiters,
    sealed_at: Instant,
}

/// Why writing over one connection ended.
enum Interrupted {
    Drained,
    Connection,
}

impl LedgerWriter {
    /// Takes over a connection whose parent has the log up to `ledger`'s head.
    pub fn new(
        ledger: Ledger,
        epoch_key: Arc<SigningKey>,
        store: Store,
        links: watch::Sender<Option<Arc<HostLink>>>,
    ) -> Self {
        let state = ledger.persisted();
        let acknowledged = Durable { size: state.size, last: state.last };
        Self {
            ledger,
            epoch_key,
            store,
            links,
            acknowledged,
            in_flight: VecDeque::new(),
            pause: BACKOFF.0,
            metrics: Arc::default(),
        }
    }

    /// The same writer, counting with what else the enclave counts.
    #[must_use]
    pub fn counting(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Runs until the ledger is closed and everything placed is durable, or until `abandon`.
    ///
    /// # Errors
    /// [`LedgerFatal`]; the ledger takes no further events then.
    pub async fn run(mut self, abandon: CancellationToken) -> Result<(), LedgerFatal> {
        let result = tokio::select! {
            () = abandon.cancelled() => Ok(()),
            result = self.write_forever() => result,
        };
        self.ledger.close();
        result
    }

    async fn write_forever(&mut self) -> Result<(), LedgerFatal> {
        loop {
            let link = self.links.borrow().clone();
            if let Some(link) = link
                && let Interrupted::Drained = self.write_over(&link).await
            {
                return Ok(());
            }
            self.set_open(false);
            self.reconnect().await?;
            // With something in flight it opens when the first of it is acknowledged: a parent that is back, but whose disk is
            // still full, is not back.
            if self.in_flight.is_empty() {
                self.set_open(true);
            }
        }
    }

    /// Sends batches and takes in acknowledgements, in order, over one connection.
    async fn write_over(&mut self, link: &HostLink) -> Interrupted {
        let mut answers = VecDeque::new();
        for flight in &self.in_flight {
            self.metrics.count(Metric::LogResent, &[]);
            match flight.send(link).await {
                Ok(answer) => answers.push_back(answer),
                Err(_) => return Interrupted::Connection,
            }
        }
        let mut patience = Instant::now() + ANSWER_PATIENCE;
        loop {
            if self.in_flight.is_empty() {
                patience = Instant::now() + ANSWER_PATIENCE;
            }
            // Asked before the last look for a batch: whatever was placed before the ledger was closed is found by that look.
            let closed = *self.ledger.0.availability.borrow() == Availability::Closed;
            while self.in_flight.len() < WINDOW
                && let Some(batch) = self.next_batch()
            {
                let flight = self.seal(batch);
                let sent = flight.send(link).await;
                self.in_flight.push_back(flight);
                self.count_under_way();
                match sent {
                    Ok(answer) => answers.push_back(answer),
                    Err(_) => return Interrupted::Connection,
                }
            }
            if closed && self.in_flight.is_empty() {
                return Interrupted::Drained;
            }
            tokio::select! {
                biased;
                answer = first(&mut answers) => match answer {
                    Some(Reply::Appended(durable)) if self.acknowledge(durable) => {
                        answers.pop_front();
                        patience = Instant::now() + ANSWER_PATIENCE;
                        self.set_open(true);
                    }
                    Some(Reply::Failed(error)) => {
                        tracing::warn!(%error, "the parent did not persist a batch; it will be sent again");
                        return Interrupted::Connection;
                    }
                    _ => return Interrupted::Connection,
                },
                () = sleep_until(patience), if !self.in_flight.is_empty() => {
                    tracing::warn!("the parent does not say that a batch is durable; it will be sent again");
                    return Interrupted::Connection;
                }
                () = link.closed() => return Interrupted::Connection,
                () = self.ledger.0.wake.notified(), if self.in_flight.len() < WINDOW => {}
            }
        }
    }

    fn next_batch(&self) -> Option<ClosedBatch> {
        self.ledger.head().next_batch()
    }

    /// Seals a batch. From here on it is never withdrawn.
    fn seal(&self, closed: ClosedBatch) -> Flight {
        let ClosedBatch { batch, previous, state, records, waiters } = closed;
        let seal = Seal::sign(&self.epoch_key, self.ledger.log_id(), state);
        let durable = Arc::new(DurableBatch { seal, tree: batch.tree() });
        let mut pieces = Pieces::with_room(batch.leaf_bytes() + RECORD_HEAD * (batch.len() + 1) + Seal::LEN);
        for (leaf, beside) in batch.leaves().zip(&records) {
            beside.iter().for_each(|record| pieces.put(record.into()));
            pieces.put(RecordView { kind: RecordKind::Entry, payload: leaf });
        }
        pieces.put(RecordView { kind: RecordKind::Seal, payload: &seal.to_bytes() });
        let Pieces { staged, last: records } = pieces;
        let after = Durable { size: state.size, last: state.last };
        let (log_id, first) = (self.ledger.log_id(), batch.first);
        let append = Append { log_id, epoch: state.epoch, first, previous, after, records };
        let append = Arc::new(Request::Append(append));
        let staged = staged.into_iter().map(|records| Arc::new(Request::Stage(records))).collect();
        self.metrics.count(Metric::LogBatches, &[]);
        self.metrics.set(Metric::LogSealed, &[], state.size);
        Flight { staged, append, after, state, durable, waiters, sealed_at: Instant::now() }
    }

    /// Takes in that the oldest batch in flight is durable. `false` where that is not what the parent said.
    fn acknowledge(&mut self, durable: Durable) -> bool {
        if self.in_flight.front().is_none_or(|flight| flight.after != durable) {
            return false;
        }
        if let Some(flight) = self.in_flight.pop_front() {
            self.acknowledged = durable;
            self.pause = BACKOFF.0;
            self.ledger.0.persisted.send_replace(flight.state);
            self.metrics.observe(Metric::PersistSeconds, &[], flight.sealed_at.elapsed());
            self.count_under_way();
            flight.tell();
        }
        true
    }

    /// Connects anew, and finds out from the parent how much of what is in flight it has.
    async fn reconnect(&mut self) -> Result<(), LedgerFatal> {
        loop {
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(BACKOFF.1);
            match HostLink::open(&self.store.endpoint, self.store.session, CONNECT, &self.store.stop).await {
                Ok((link, welcome)) => {
                    self.metrics.count(Metric::LogReconnects, &[]);
                    self.reconcile(&welcome)?;
                    self.links.send_replace(Some(Arc::new(link)));
                    return Ok(());
                }
                Err(HostFailure::Refused(HostError::Fenced)) => return Err(LedgerFatal::Fenced),
                Err(error) => tracing::warn!(%error, "no connection to the parent"),
            }
        }
    }

    /// Takes in what the parent has, as far as it may have that.
    fn reconcile(&mut self, welcome: &Welcome) -> Result<(), LedgerFatal> {
        let in_flight = self.in_flight.iter().map(|flight| flight.after);
        for _ in 0..resume(self.ledger.log_id(), self.acknowledged, in_flight, welcome.durable)? {
            if let Some(after) = self.in_flight.front().map(|flight| flight.after) {
                self.acknowledge(after);
            }
        }
        Ok(())
    }

    fn count_under_way(&self) {
        self.metrics.set(Metric::LogBatchesUnderWay, &[], self.in_flight.len() as u64);
    }

    /// Marks the ledger open or interrupted, unless it is closed.
    fn set_open(&self, open: bool) {
        self.ledger.0.availability.send_if_modified(|state| {
            let next = if open { Availability::Open } else { Availability::Interrupted };
            let change = *state != Availability::Closed && *state != next;
            if change {
                *state = next;
            }
            change
        });
    }
}

impl Flight {
    /// Sends the batch; the answer to it comes later. Where a piece before it is refused, so is the batch: it is not whole.
    async fn send(&self, link: &HostLink) -> Result<oneshot::Receiver<Reply>, HostFailure> {
        for piece in &self.staged {
            drop(link.send(Arc::clone(piece)).await?);
        }
        link.send(Arc::clone(&self.append)).await
    }

    /// Tells whoever waits that it is durable, and gives its room back.
    fn tell(self) {
        self.waiters.fate.send_replace(Some(self.durable));
    }
}

/// The records of a batch as they will lie on disk, in pieces that each fit one request. All but the last are staged.
struct Pieces {
    staged: Vec<Vec<u8>>,
    last: Vec<u8>,
}

impl Pieces {
    fn with_room(bytes: usize) -> Self {
        Self { staged: Vec::new(), last: Vec::with_capacity(bytes.min(APPEND_LIMIT)) }
    }

    fn put(&mut self, record: RecordView<'_>) {
        if !self.last.is_empty() && self.last.len() + record.disk_len() > APPEND_LIMIT {
            self.staged.push(std::mem::take(&mut self.last));
        }
        record.write_to(&mut self.last);
    }
}

/// The answer to the oldest request; never where there is none. `None` where the connection ended before it.
async fn first(answers: &mut VecDeque<oneshot::Receiver<Reply>>) -> Option<Reply> {
    match answers.front_mut() {
        Some(answer) => answer.await.ok(),
        None => std::future::pending().await,
    }
}
