//! What is done to the log itself while it is written: snapshots, legal holds, and giving up what is old enough.
//!
//! | step of pruning | a crash behind it leaves |
//! |---|---|
//! | 1. choose a durable snapshot that the retention policy lets stand for what is before it | nothing |
//! | 2. show that KMS unwraps every key version that can still decrypt, to the key that was wrapped | nothing |
//! | 3. record that the events before are given up; wait until that is durable | a log with all its segments, that may begin at the snapshot |
//! | 4. tell the parent to drop the segments | some of them; they are passed over by every reader, and dropped when the parent is told again |

mod retention;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use thiserror::Error;
use tokio::{sync::Semaphore, task::JoinSet};
use transcode_confidential::{
    audit::{AuditEventType, AuditSeverity, EventBody, EventDraft, HOLD_NAME_LIMIT, HoldChange, Receipt, RequestTag},
    fold::{Fold, HOLDS_LIMIT},
    ids::{KeyId, KeyVersion, Principal, Sequence},
    keys::{KeyState, VersionState},
    protocol::host::Request,
    time::{Clock as _, Timestamp},
};

pub use retention::LogKeeping;

use crate::{
    custody::{Custody, CustodyError},
    host::CurrentLink,
    keyring::{UnwrapError, WrappedRecord},
    kms::WrapContext,
    ledger::{Entry, LedgerError},
};

/// Keys that are unwrapped at the same time to show that they can be: clients have the rest of KMS's attention.
const PROVEN_AT_ONCE: usize = 4;
/// At a clean end a snapshot is taken where at least this part of what calls for one has come together.
const AT_END: u64 = 16;

/// Keeps the log.
pub struct Archive {
    custody: Arc<Custody>,
    link: CurrentLink,
    keeping: LogKeeping,
    pruning: Semaphore,
    /// After a snapshot that could not be taken, none is tried before the log has come this far.
    not_before: AtomicU64,
}

/// Something was done to the log.
#[derive(Debug)]
pub struct Maintained {
    /// Position of the event that records it.
    pub sequence: Sequence,
    /// Of a pruning: the first event that is kept.
    pub below: Option<Sequence>,
    /// The receipt.
    pub receipt: Receipt,
}

/// Who asks for something to be done to the log, and under which idempotency key.
#[derive(Debug, Clone, Copy)]
pub struct AskedBy<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// Names the request, where it may come again.
    pub tag: Option<RequestTag>,
}

/// Why nothing was done to the log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A legal hold forbids it.
    #[error("a legal hold forbids pruning: {0}")]
    Held(String),
    /// Nothing is old enough, or no snapshot stands for it.
    #[error("there is nothing to prune: no snapshot that the retention policy lets stand for what is before it")]
    NothingToPrune,
    /// Another pruning is under way.
    #[error("the log is being pruned right now")]
    InProgress,
    /// A key version could not be unwrapped, so what holds its record is kept.
    #[error("version {version} of key {key} cannot be unwrapped now, so nothing is given up: {reason}")]
    NotUnwrapped {
        /// The key.
        key: KeyId,
        /// The version.
        version: KeyVersion,
        /// What stands in the way.
        reason: String,
    },
    /// A hold of this name is in force.
    #[error("a hold of this name is in force")]
    HoldExists,
    /// No hold of this name is in force.
    #[error("no hold of this name is in force")]
    NoSuchHold,
    /// Not a name for a hold.
    #[error(
        "a hold has a name of 1 to {HOLD_NAME_LIMIT} bytes without control characters, and there are at most {HOLDS_LIMIT}"
    )]
    HoldName,
    /// The record cannot be kept now.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Archive {
    /// Takes the parts over.
    pub fn new(custody: Arc<Custody>, link: CurrentLink, keeping: LogKeeping) -> Self {
        Self { custody, link, keeping, pruning: Semaphore::new(1), not_before: AtomicU64::new(0) }
    }

    /// Writes the whole state down, now.
    ///
    /// # Errors
    /// [`ArchiveError::Ledger`].
    pub async fn snapshot(&self, asked: Option<AskedBy<'_>>) -> Result<Maintained, ArchiveError> {
        let recorded = self.custody.ledger.take_snapshot(|draft| by(asked, draft))?;
        let (event, receipt) = recorded.persisted().await?;
        tracing::info!(sequence = event.sequence.0, "snapshot taken");
        Ok(Maintained { sequence: event.sequence, below: None, receipt })
    }

    /// Does what is due: a snapshot, then pruning where the configuration says so.
    pub async fn look_after(&self) {
        if self.snapshot_is_due(1)
            && let Err(error) = self.snapshot(None).await
        {
            tracing::warn!(%error, "a snapshot that is due was not taken");
            let size = self.custody.ledger.placed_size();
            self.not_before.store(size.saturating_add(self.keeping.snapshot_events / AT_END), Ordering::Relaxed);
        }
        if self.keeping.prune && self.custody.ledger.with_fold(|fold, now| self.choose(fold, now, None).is_ok()) {
            match self.prune(None, None).await {
                Ok(done) => tracing::info!(below = done.below.map(|below| below.0), "pruned the log"),
                Err(error) => tracing::warn!(%error, "the log was not pruned"),
            }
        }
    }

    /// At a clean end, while the ledger still takes events: a snapshot, where enough has come together that the next boot is
    /// noticeably faster for it.
    pub fn at_end(&self) {
        if self.snapshot_is_due(AT_END)
            && let Err(error) = self.custody.ledger.take_snapshot(|draft| draft)
        {
            tracing::warn!(%error, "no snapshot was taken at the end");
        }
    }

    /// Places or lifts a legal hold.
    ///
    /// # Errors
    /// [`ArchiveError::HoldName`], [`ArchiveError::HoldExists`], [`ArchiveError::NoSuchHold`], [`ArchiveError::Ledger`].
    pub async fn hold(&self, asked: AskedBy<'_>, name: &str, change: HoldChange) -> Result<Maintained, ArchiveError> {
        if name.is_empty() || name.len() > HOLD_NAME_LIMIT || name.chars().any(char::is_control) {
            return Err(ArchiveError::HoldName);
        }
        let recorded = self.custody.ledger.decide_on_log(|fold, _| {
            let details = match (change, fold.hold(name).is_some()) {
                (HoldChange::Placed, true) => return Err(ArchiveError::HoldExists),
                (HoldChange::Placed, false) if fold.holds().count() >= HOLDS_LIMIT => {
                    return Err(ArchiveError::HoldName);
                }
                (HoldChange::Placed, false) => "a legal hold was placed: nothing is pruned",
                (_, false) => return Err(ArchiveError::NoSuchHold),
                (_, true) => "a legal hold was lifted",
            };
            let body = EventBody::Hold { name: name.to_owned(), change };
            Ok(Entry::from(by(Some(asked), warning(details).body(body))))
        })?;
        let (event, receipt) = recorded.persisted().await?;
        Ok(Maintained { sequence: event.sequence, below: None, receipt })
    }

    /// Gives up events: all before the newest snapshot that the retention policy lets stand for them, and that is not beyond
    /// `up_to`. Where nobody asked it is we who prune, because it is due.
    ///
    /// # Errors
    /// [`ArchiveError`]; nothing was given up then, or it is not known to be durable.
    pub async fn prune(&self, asked: Option<AskedBy<'_>>, up_to: Option<Sequence>) -> Result<Maintained, ArchiveError> {
        let _one = self.pruning.try_acquire().map_err(|_| ArchiveError::InProgress)?;
        // 1.
        let below = self.custody.ledger.with_fold(|fold, now| self.choose(fold, now, up_to))?;
        // 2.
        let proven = self.prove_keys().await?;
        // 3. Decided anew, with what came in between: a hold above all.
        let recorded = self.custody.ledger.decide_on_log(|fold, now| {
            if self.choose(fold, now, Some(below))? != below {
                return Err(ArchiveError::NothingToPrune);
            }
            let details = format!("events before {below} were given up; {proven} key versions were unwrapped first");
            let draft = warning(&details).body(EventBody::Pruned { below, proven });
            Ok(Entry::from(by(asked, draft)))
        })?;
        let (event, receipt) = recorded.persisted().await.map_err(ArchiveError::from)?;
        // 4.
        self.remind_parent().await;
        Ok(Maintained { sequence: event.sequence, below: Some(below), receipt })
    }

    /// Tells the parent once more what it may drop: it may have been interrupted.
    pub async fn remind_parent(&self) {
        let below = self.custody.ledger.with_fold(|fold, _| fold.kept_from());
        if below > Sequence(0)
            && let Err(error) = self.link.call(Request::Prune { below }).await
        {
            tracing::warn!(%error, "the parent did not drop what was given up");
        }
    }

    fn snapshot_is_due(&self, part: u64) -> bool {
        let size = self.custody.ledger.placed_size();
        let (sequence, time) = self.custody.ledger.with_fold(|fold, now| {
            let began = fold.epoch().map_or(now, |epoch| epoch.opened_at);
            fold.snapshots().next_back().map_or((Sequence(0), began), |place| (place.sequence, place.time))
        });
        let since = size.saturating_sub(sequence.0.saturating_add(1));
        let aged = self.custody.clock.now().since(time) >= self.keeping.snapshot_age() && part == 1;
        size >= self.not_before.load(Ordering::Relaxed)
            && since > 0
            && (aged || since >= self.keeping.snapshot_events / part)
    }

    fn choose(&self, fold: &Fold, now: Timestamp, up_to: Option<Sequence>) -> Result<Sequence, ArchiveError> {
        if fold.is_held() {
            let names: Vec<&str> = fold.holds().map(|(name, _)| name).take(8).collect();
            return Err(ArchiveError::Held(names.join(", ")));
        }
        let durable = self.custody.ledger.persisted().size;
        let places = fold.snapshots().rev().filter(|place| {
            place.sequence > fold.kept_from()
                && place.sequence.0 < durable
                && up_to.is_none_or(|up_to| place.sequence <= up_to)
        });
        let mut allowed = places.filter(|place| self.keeping.lets_go(place, durable, now));
        allowed.next().map(|place| place.sequence).ok_or(ArchiveError::NothingToPrune)
    }

    /// Has KMS unwrap every version that can still decrypt, from the record that the newest state has of it, and compares its
    /// key check. What is in memory already counts for nothing: it may be gone tomorrow.
    async fn prove_keys(&self) -> Result<u64, ArchiveError> {
        let records = self.custody.ledger.with_fold(|fold, _| usable_records(fold))?;
        let proven = records.len() as u64;
        let turns = Arc::new(Semaphore::new(PROVEN_AT_ONCE));
        let mut proofs = JoinSet::new();
        for (key, version, record) in records {
            let (custody, turns) = (Arc::clone(&self.custody), Arc::clone(&turns));
            proofs.spawn(async move {
                let _turn = turns.acquire().await;
                custody.prove(&key, version, &record).await.map_err(|error| not_unwrapped(key, version, &error))
            });
        }
        while let Some(proof) = proofs.join_next().await {
            // A task of ours that panics proves nothing.
            proof.map_err(|_| LedgerError::Unavailable)??;
        }
        Ok(proven)
    }
}

impl Custody {
    async fn prove(&self, key: &KeyId, version: KeyVersion, record: &[u8]) -> Result<(), CustodyError> {
        let record = WrappedRecord::from_bytes(record).map_err(|_| CustodyError::RecordMissing)?;
        let context = WrapContext::content_key(self.log_id(), key.clone(), version);
        match record.prove(&self.kms, &context).await {
            Ok(()) => Ok(()),
            Err(UnwrapError::Kms(error)) => {
                Err(self.kms_failed(Some((key, version)), self.kms_health.failed(error)).await)
            }
            Err(UnwrapError::OtherKey) => Err(CustodyError::OtherKey),
        }
    }
}

/// The record of every version that can still decrypt.
fn usable_records(fold: &Fold) -> Result<Vec<(KeyId, KeyVersion, Vec<u8>)>, ArchiveError> {
    let records: Vec<_> = fold.wrapped().map(|(id, version, record)| (id.clone(), version, record.to_vec())).collect();
    for (id, key) in fold.keys().iter().filter(|(_, key)| matches!(key.state, KeyState::Active | KeyState::Suspended)) {
        let usable = |state| matches!(state, VersionState::Active | VersionState::Deactivated);
        for version in key.versions.iter().filter(|version| usable(version.state)) {
            let found = records.binary_search_by(|(other, number, _)| (other, *number).cmp(&(id, version.version)));
            if found.is_err() {
                return Err(not_unwrapped(id.clone(), version.version, &CustodyError::RecordMissing));
            }
        }
    }
    Ok(records)
}

fn not_unwrapped(key: KeyId, version: KeyVersion, error: &CustodyError) -> ArchiveError {
    ArchiveError::NotUnwrapped { key, version, reason: error.to_string() }
}

fn by(asked: Option<AskedBy<'_>>, draft: EventDraft) -> EventDraft {
    match asked {
        Some(AskedBy { principal, tag }) => draft.principal(principal).request(tag),
        None => draft,
    }
}

fn warning(details: &str) -> EventDraft {
    EventDraft::new(AuditEventType::LogMaintained, details).severity(AuditSeverity::Warning)
}
