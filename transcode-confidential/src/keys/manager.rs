use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use super::{
    Attestor, KeyError, KeyRequest, KeyRotationPolicy, KeyState, KeyTable, RotationNeed, VersionRecord, VersionState,
};
use crate::{
    attestation::Purpose,
    audit::{AuditEventType, AuditLog, AuditSeverity, CreationReason, EventBody, EventDraft, KeyChange, KeyOperation},
    entropy::{Entropy, OsEntropy},
    ids::{KeyId, KeyVersion},
    secret::KeyMaterial,
    time::{Clock, SystemClock, Timestamp},
};

/// Keys with a life cycle, in memory, every step of it on an [`AuditLog`].
///
/// The same state machine as in the enclave, on local key material. [`KeyRotationManager::new`] has nobody who could attest:
/// it is in **audit mode**, where a rotation under `require_attestation` goes ahead and a Critical `AttestationFailed` event
/// says that nothing attested it. [`KeyRotationManager::with_attestor`] **enforces**: no attestation, no rotation.
///
/// ```
/// use transcode_confidential::audit::{KeyRotationManager, KeyRotationPolicy};
///
/// let policy = KeyRotationPolicy { max_age_secs: 3600, max_uses: 2, require_attestation: false };
/// let mut manager = KeyRotationManager::new(policy);
/// manager.generate_key("reel-1")?;
/// for _ in 0..2 {
///     let length = manager.use_key("reel-1", |_version, material| material.expose().len())?;
///     assert_eq!(length, 32);
/// }
/// assert!(manager.use_key("reel-1", |_, _| ()).is_err(), "both uses are spent");
/// assert_eq!(manager.rotate_key("reel-1")?, 2);
/// manager.revoke_key("reel-1")?;
/// assert!(manager.get_active_key("reel-1").is_none());
/// assert!(manager.audit_log().verify_integrity());
/// # Ok::<(), transcode_confidential::audit::KeyError>(())
/// ```
pub struct KeyRotationManager {
    policy: KeyRotationPolicy,
    table: KeyTable,
    materials: HashMap<(KeyId, KeyVersion), KeyMaterial>,
    log: AuditLog,
    clock: Arc<dyn Clock>,
    entropy: Box<dyn Entropy>,
    attestor: Option<Box<dyn Attestor>>,
}

/// One version of a key, as it was when it was asked for. Holds no secret.
///
/// ```
/// use transcode_confidential::audit::{KeyRotationManager, KeyRotationPolicy};
///
/// let mut manager = KeyRotationManager::new(KeyRotationPolicy::default());
/// manager.generate_key("reel-1")?;
/// let key = manager.get_active_key("reel-1").unwrap();
/// assert!(key.active && key.version == 1 && key.uses == 0);
/// # Ok::<(), transcode_confidential::audit::KeyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManagedKey {
    /// Name of the key.
    pub key_id: String,
    /// Number of the version, from 1.
    pub version: u32,
    /// Whether new messages use this version.
    pub active: bool,
    /// State of the version.
    pub state: VersionState,
    /// When it was made, in seconds since the Unix epoch.
    pub created_at: u64,
    /// Uses granted so far.
    pub uses: u64,
    /// When the key rotates.
    pub policy: KeyRotationPolicy,
}

impl KeyRotationManager {
    /// A manager in audit mode on the system's clock and randomness. `policy` is that of every key made by
    /// [`KeyRotationManager::generate_key`], and is checked there.
    pub fn new(policy: KeyRotationPolicy) -> Self {
        Self::with_parts(policy, SystemClock, OsEntropy, None)
    }

    /// A manager that rotates a key under `require_attestation` only after `attestor` has agreed.
    pub fn with_attestor(policy: KeyRotationPolicy, attestor: impl Attestor + 'static) -> Self {
        Self::with_parts(policy, SystemClock, OsEntropy, Some(Box::new(attestor)))
    }

    /// A manager with every part handed in.
    pub fn with_parts(
        policy: KeyRotationPolicy,
        clock: impl Clock + 'static,
        entropy: impl Entropy + 'static,
        attestor: Option<Box<dyn Attestor>>,
    ) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(clock);
        Self {
            policy,
            table: KeyTable::new(),
            materials: HashMap::new(),
            log: AuditLog::with_clock(Arc::clone(&clock)),
            clock,
            entropy: Box::new(entropy),
            attestor,
        }
    }

    /// Makes a key and its first version, number 1, which is returned.
    ///
    /// # Errors
    /// [`KeyError::Id`], [`KeyError::Policy`], [`KeyError::Exists`] (also for a revoked key), [`KeyError::Entropy`].
    pub fn generate_key(&mut self, key_id: &str) -> Result<u32, KeyError> {
        let request = KeyRequest::Generate { policy: self.policy, record: None };
        self.create(&key_id.parse()?, &request)
    }

    /// The version that new messages use. A look, not a use: nothing is counted or recorded. `None` where the key does not
    /// exist or is not in use.
    pub fn get_active_key(&self, key_id: &str) -> Option<ManagedKey> {
        let id = key_id.parse().ok()?;
        let key = self.table.usable(&id).ok()?;
        key.active().map(|version| ManagedKey::of(&id, key.policy, key.state, version))
    }

    /// Whether the active version has reached its greatest age or its number of uses at `now_secs`, in seconds since the
    /// Unix epoch. `false` for a key that is not in use.
    pub fn needs_rotation(&self, key_id: &str, now_secs: u64) -> bool {
        self.rotation_need(key_id, now_secs) == RotationNeed::Required
    }

    /// As [`KeyRotationManager::needs_rotation`], telling also that the limit comes near. A second counts as past to its
    /// end, so that a key made within second `s` has its full age at `s + max_age_secs`.
    pub fn rotation_need(&self, key_id: &str, now_secs: u64) -> RotationNeed {
        let key = key_id.parse().ok().and_then(|id| self.table.key(&id));
        let end_of_second = Timestamp::from_secs(now_secs).plus(Duration::from_millis(999));
        key.map_or(RotationNeed::None, |key| key.rotation_need(end_of_second))
    }

    /// Makes the next version, which is returned. The versions before it stay usable for decryption.
    ///
    /// # Errors
    /// [`KeyError::Unknown`], [`KeyError::Suspended`], [`KeyError::Revoked`], [`KeyError::Entropy`], and with an attestor
    /// [`KeyError::Attestation`]; the active version stays what it was then.
    pub fn rotate_key(&mut self, key_id: &str) -> Result<u32, KeyError> {
        let id: KeyId = key_id.parse()?;
        let reason = self.rotation_reason(&id)?;
        let request = KeyRequest::Rotate { expected: None, reason, record: None };
        let planned = self.table.decide(&id, &request, self.clock.now())?;
        if self.table.usable(&id)?.policy.require_attestation {
            self.attest(&id, planned.key_version.unwrap_or_default())?;
        }
        self.create(&id, &request)
    }

    /// Ends a key: no version of it is usable any more, its material is wiped, its id is never used again.
    ///
    /// # Errors
    /// [`KeyError::Unknown`], [`KeyError::Revoked`].
    pub fn revoke_key(&mut self, key_id: &str) -> Result<(), KeyError> {
        let id = key_id.parse()?;
        self.commit(&id, &KeyRequest::Change(KeyChange::Revoked))?;
        self.materials.retain(|(key, _), _| *key != id);
        Ok(())
    }

    /// Suspends a key: no use until it is resumed.
    ///
    /// # Errors
    /// [`KeyError::Unknown`], [`KeyError::Suspended`], [`KeyError::Revoked`].
    pub fn suspend_key(&mut self, key_id: &str) -> Result<(), KeyError> {
        self.commit(&key_id.parse()?, &KeyRequest::Change(KeyChange::Suspended)).map(drop)
    }

    /// Takes a suspension back.
    ///
    /// # Errors
    /// [`KeyError::Unknown`], [`KeyError::NotSuspended`], [`KeyError::Revoked`].
    pub fn resume_key(&mut self, key_id: &str) -> Result<(), KeyError> {
        self.commit(&key_id.parse()?, &KeyRequest::Change(KeyChange::Resumed)).map(drop)
    }

    /// Ends a key as [`KeyRotationManager::revoke_key`] does, also one that was revoked before, for good.
    ///
    /// # Errors
    /// [`KeyError::Unknown`]; [`KeyError::Revoked`] where it was destroyed before.
    pub fn destroy_key(&mut self, key_id: &str) -> Result<(), KeyError> {
        let id = key_id.parse()?;
        self.commit(&id, &KeyRequest::Change(KeyChange::Destroyed))?;
        self.materials.retain(|(key, _), _| *key != id);
        Ok(())
    }

    /// Ends one version that is not active; its material is wiped.
    ///
    /// # Errors
    /// [`KeyError::ActiveVersion`], [`KeyError::NoSuchVersion`], [`KeyError::Unknown`], [`KeyError::Revoked`].
    pub fn destroy_version(&mut self, key_id: &str, version: u32) -> Result<(), KeyError> {
        let (id, version) = (key_id.parse()?, KeyVersion(version));
        self.commit(&id, &KeyRequest::DestroyVersion(version))?;
        self.materials.remove(&(id, version));
        Ok(())
    }

    /// Decrypts under versions from `version` on only. May be lowered again.
    ///
    /// # Errors
    /// [`KeyError::NoSuchVersion`], [`KeyError::Unchanged`], [`KeyError::Unknown`], [`KeyError::Revoked`].
    pub fn decrypt_from(&mut self, key_id: &str, version: u32) -> Result<(), KeyError> {
        self.commit(&key_id.parse()?, &KeyRequest::DecryptFrom(KeyVersion(version))).map(drop)
    }

    /// Every version of a key, oldest first. Empty for a key that does not exist.
    pub fn key_versions(&self, key_id: &str) -> Vec<ManagedKey> {
        let found = key_id.parse().ok().and_then(|id: KeyId| self.table.key(&id).map(|key| (id.clone(), key)));
        found.map_or_else(Vec::new, |(id, key)| {
            key.versions.iter().map(|version| ManagedKey::of(&id, key.policy, key.state, version)).collect()
        })
    }

    /// Uses the active version once: counts and records the use, then hands the material to `with`.
    ///
    /// # Errors
    /// [`KeyError::RotationDue`] where the version has reached its limit; [`KeyError::Unknown`], [`KeyError::Suspended`],
    /// [`KeyError::Revoked`].
    pub fn use_key<T>(
        &mut self,
        key_id: &str,
        with: impl FnOnce(KeyVersion, &KeyMaterial) -> T,
    ) -> Result<T, KeyError> {
        let id: KeyId = key_id.parse()?;
        let request = KeyRequest::Use { operation: KeyOperation::Encrypt, version: None, context: None };
        let version = self.commit(&id, &request)?.unwrap_or_default();
        let material = self.materials.get(&(id, version)).ok_or(KeyError::NoSuchVersion(version))?;
        Ok(with(version, material))
    }

    /// The record of everything that was done.
    pub const fn audit_log(&self) -> &AuditLog {
        &self.log
    }

    /// State of every key.
    pub const fn table(&self) -> &KeyTable {
        &self.table
    }

    fn create(&mut self, id: &KeyId, request: &KeyRequest) -> Result<u32, KeyError> {
        let material = KeyMaterial::generate(&*self.entropy)?;
        let version = self.commit(id, request)?.unwrap_or_default();
        self.materials.insert((id.clone(), version), material);
        Ok(version.0)
    }

    /// Decides, records, applies: in this order, so that nothing takes effect that is not on the record.
    fn commit(&mut self, id: &KeyId, request: &KeyRequest) -> Result<Option<KeyVersion>, KeyError> {
        let draft = self.table.decide(id, request, self.clock.now())?;
        let event = self.log.append(draft)?;
        // An event that was just decided upon this very state cannot contradict it.
        let _ = self.table.apply(event);
        Ok(event.key_version)
    }

    fn rotation_reason(&self, id: &KeyId) -> Result<CreationReason, KeyError> {
        let key = self.table.usable(id)?;
        let active = key.active().ok_or(KeyError::Revoked)?;
        Ok(match key.rotation_need(self.clock.now()) {
            RotationNeed::Required if active.uses >= key.policy.max_uses => CreationReason::Uses,
            RotationNeed::Required => CreationReason::Age,
            RotationNeed::None | RotationNeed::Due => CreationReason::Manual,
        })
    }

    fn attest(&mut self, id: &KeyId, next: KeyVersion) -> Result<(), KeyError> {
        let body = |document, reason| EventBody::Attestation { purpose: Purpose::Head, document, reason };
        let verdict = self.attestor.as_mut().map(|attestor| attestor.attest(id, next));
        let (draft, result) = match verdict {
            Some(Ok(attested)) => (
                EventDraft::new(AuditEventType::AttestationVerified, "attested before rotation")
                    .body(body(Some(attested.document), None)),
                Ok(()),
            ),
            Some(Err(error)) => (
                EventDraft::new(AuditEventType::AttestationFailed, "rotation refused: attestation failed")
                    .body(body(None, Some(error.reason.clone()))),
                Err(error.into()),
            ),
            None => (
                EventDraft::new(
                    AuditEventType::AttestationFailed,
                    "audit mode: the policy requires attestation, nothing attested this rotation, and it went ahead",
                )
                .severity(AuditSeverity::Critical)
                .body(body(None, Some("no attestor".to_owned()))),
                Ok(()),
            ),
        };
        self.log.record(draft.key(id, Some(next)));
        result
    }
}

impl ManagedKey {
    fn of(id: &KeyId, policy: KeyRotationPolicy, state: KeyState, version: &VersionRecord) -> Self {
        Self {
            key_id: id.to_string(),
            version: version.version.0,
            active: state == KeyState::Active && version.state == VersionState::Active,
            state: version.state,
            created_at: version.created_at.as_secs(),
            uses: version.uses,
            policy,
        }
    }
}

impl fmt::Debug for KeyRotationManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRotationManager").field("table", &self.table).field("log", &self.log).finish_non_exhaustive()
    }
}
