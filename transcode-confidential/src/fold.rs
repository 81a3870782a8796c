//! What the events of a log come to: everything that an enclave must know to go on with it, and nothing else.
//!
//! [`Fold`] takes every event in its turn ([`Fold::apply`]). A [`Snapshot`] writes all of it down at one place of the log, so
//! that whoever starts there needs nothing of what lies before: a fold over the rest of the log, on top of the snapshot, is
//! the fold over all of it.

mod epochs;
mod maintenance;
mod rows;
mod snapshot;
mod streams;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

pub use epochs::{OpenEpoch, PastEpoch};
pub use maintenance::{HOLDS_LIMIT, Hold, Restoration, SnapshotPlace};
pub(crate) use rows::{RowReader, RowWriter};
pub use snapshot::{SNAPSHOT_LIMIT, Snapshot, SnapshotError};
pub use streams::Unfinished;

use crate::{
    audit::{AuditEvent, AuditEventType, EventBody, segment::Record},
    ids::{KeyId, KeyVersion, Sequence},
    keys::{FoldError, KeyTable, VersionState},
};

/// What the events of a log come to. Holds no secrets: keys are in it as KMS wrapped them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fold {
    keys: KeyTable,
    wrapped: BTreeMap<(KeyId, KeyVersion), Arc<[u8]>>,
    epoch: Option<OpenEpoch>,
    past_epochs: VecDeque<PastEpoch>,
    policy: Option<Arc<[u8]>>,
    unfinished: BTreeMap<Sequence, Unfinished>,
    holds: BTreeMap<String, Hold>,
    snapshots: VecDeque<SnapshotPlace>,
    restorations: VecDeque<Restoration>,
    kept_from: Sequence,
}

impl Fold {
    /// Of a log without events.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next event and the records beside it, in the order in which its body names them.
    ///
    /// # Errors
    /// [`FoldError`] where the event contradicts those before it; nothing changed then.
    pub fn apply(&mut self, event: &AuditEvent, beside: &[Record]) -> Result<(), FoldError> {
        self.apply_maintenance(event)?;
        self.keys.apply(event)?;
        match &event.body {
            Some(EventBody::EpochOpened(opened)) => self.open_epoch(event, opened, beside),
            Some(EventBody::KeyCreated { .. }) => self.keep_wrapped(event, beside),
            Some(EventBody::PolicyAdopted { .. }) => {
                self.policy = beside.first().map(|record| record.payload.as_slice().into());
            }
            _ if event.event_type == AuditEventType::KeyRevoked => self.drop_wrapped(event),
            _ => streams::apply(&mut self.unfinished, event),
        }
        Ok(())
    }

    /// The keys.
    pub const fn keys(&self) -> &KeyTable {
        &self.keys
    }

    /// The wrapped records of every key version that can still decrypt, by key and version.
    pub fn wrapped(&self) -> impl Iterator<Item = (&KeyId, KeyVersion, &[u8])> {
        self.wrapped.iter().map(|((id, version), record)| (id, *version, &**record))
    }

    /// The epoch of the last event.
    pub const fn epoch(&self) -> Option<&OpenEpoch> {
        self.epoch.as_ref()
    }

    /// The epochs before, oldest first, as far as they are remembered.
    pub fn past_epochs(&self) -> impl Iterator<Item = &PastEpoch> {
        self.past_epochs.iter()
    }

    /// The newest policy, as its authority signed it.
    pub fn policy(&self) -> Option<&[u8]> {
        self.policy.as_deref()
    }

    /// Streams that began and have no recorded end, oldest first.
    pub fn unfinished(&self) -> impl Iterator<Item = &Unfinished> {
        self.unfinished.values()
    }

    fn keep_wrapped(&mut self, event: &AuditEvent, beside: &[Record]) {
        let id = event.key_id.as_deref().and_then(|id| id.parse().ok());
        if let (Some(id), Some(version), Some(record)) = (id, event.key_version, beside.first()) {
            self.wrapped.insert((id, version), record.payload.as_slice().into());
        }
    }

    /// What can no longer be used need not be kept.
    fn drop_wrapped(&mut self, event: &AuditEvent) {
        let Some(id) = event.key_id.as_deref().and_then(|id| id.parse::<KeyId>().ok()) else { return };
        let Some(key) = self.keys.key(&id) else { return };
        for version in &key.versions {
            if matches!(version.state, VersionState::Revoked | VersionState::Destroyed) {
                self.wrapped.remove(&(id.clone(), version.version));
            }
        }
    }
}

/// Adds to a memory that forgets the oldest.
fn remember<T>(memory: &mut VecDeque<T>, item: T, limit: usize) {
    if memory.len() >= limit {
        memory.pop_front();
    }
    memory.push_back(item);
}
