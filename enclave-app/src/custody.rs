//! Custody of the keys: what the service does when it is asked to make, rotate, end or use one.
//!
//! Every way a key can leave its record goes through [`Custody`], and each method gives something out only after the event
//! that records it is durable.

mod change;
mod data_keys;
mod error;
mod failures;
mod health;
mod lifecycle;
mod media;
mod pacing;
mod usage;

pub use change::{Asked, Change};
pub use data_keys::{PendingUnwrap, Released};
pub use error::CustodyError;
pub use health::KmsCounters;
pub use media::MediaGrant;
pub use usage::{Ended, OpenUse, PendingUse, Purpose, UseGrant};

use std::{collections::HashSet, sync::Arc};

use transcode_confidential::{
    audit::Receipt,
    ids::{Epoch, KeyId, LogId},
    keys::{KeyRecord, KeyRotationPolicy},
    protocol::api::{KeyInfo, VersionInfo},
    time::Timestamp,
};

use failures::FailureMeter;
use pacing::Rotations;

use crate::{
    attestor::SelfAttestor,
    clock::EnclaveClock,
    keyring::Keyring,
    kms::KmsClient,
    ledger::Ledger,
    lock::{Mutex, PoisonError},
};

/// The keys, and everything that is needed to keep them.
pub struct Custody {
    /// The log.
    pub ledger: Ledger,
    /// Key material.
    pub keyring: Keyring,
    /// KMS.
    pub kms: KmsClient,
    /// How KMS has answered.
    pub kms_health: KmsCounters,
    kms_failures: FailureMeter,
    /// Our own attestation, before a rotation and every hour.
    pub attestor: SelfAttestor,
    /// The one clock.
    pub clock: Arc<EnclaveClock>,
    /// The epoch of this boot.
    pub epoch: Epoch,
    /// Policy of keys that are made without one.
    pub defaults: KeyRotationPolicy,
    in_progress: Mutex<HashSet<KeyId>>,
    rotations: Rotations,
}

/// A key after a change, with the receipt of the event that records it.
#[derive(Debug)]
pub struct Changed {
    /// The key.
    pub key: KeyInfo,
    /// The receipt.
    pub receipt: Receipt,
}

impl Custody {
    /// Takes the parts over.
    pub fn new(
        ledger: Ledger,
        keyring: Keyring,
        kms: KmsClient,
        attestor: SelfAttestor,
        clock: Arc<EnclaveClock>,
        epoch: Epoch,
        defaults: KeyRotationPolicy,
    ) -> Self {
        Self {
            ledger,
            keyring,
            kms,
            kms_health: KmsCounters::default(),
            kms_failures: FailureMeter::default(),
            attestor,
            clock,
            epoch,
            defaults,
            in_progress: Mutex::new(HashSet::new()),
            rotations: Rotations::new(),
        }
    }

    /// The log.
    pub fn log_id(&self) -> LogId {
        self.ledger.log_id()
    }

    /// One key, as it is now.
    pub fn info(&self, id: &KeyId) -> Option<KeyInfo> {
        self.ledger.with_keys(|keys, now| keys.key(id).map(|key| key_info(id, key, now)))
    }

    /// The keys that `wanted` picks, by name.
    pub fn list(&self, wanted: impl Fn(&KeyId) -> bool) -> Vec<KeyInfo> {
        // Asked outside of the critical section: who is wanted may take a while to say.
        let ids: Vec<KeyId> = self.ledger.with_keys(|keys, _| keys.iter().map(|(id, _)| id.clone()).collect());
        ids.iter().filter(|id| wanted(id)).filter_map(|id| self.info(id)).collect()
    }

    /// Makes sure that one key has one generation or rotation under way at a time.
    fn begin(self: &Arc<Self>, id: &KeyId) -> Option<InProgress> {
        let fresh = self.in_progress.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        fresh.then(|| InProgress { custody: Arc::clone(self), id: id.clone() })
    }
}

struct InProgress {
    custody: Arc<Custody>,
    id: KeyId,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.custody.in_progress.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

fn key_info(id: &KeyId, key: &KeyRecord, now: Timestamp) -> KeyInfo {
    KeyInfo {
        id: id.clone(),
        state: key.state,
        decrypt_from: key.decrypt_from,
        active_version: key.active().map(|version| version.version),
        policy: key.policy,
        rotation: key.rotation_need(now),
        versions: key
            .versions
            .iter()
            .map(|version| VersionInfo {
                version: version.version,
                state: version.state,
                created_at: version.created_at,
                uses: version.uses,
            })
            .collect(),
    }
}
