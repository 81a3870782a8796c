use std::collections::BTreeMap;

use super::{Answered, AnsweredRequests, FoldError, KeyError, KeyRotationPolicy, MediaPeriods, RotationNeed};
use crate::{
    audit::{AuditEvent, AuditEventType, EventBody, KeyChange, KeyOperation},
    ids::{Digest, KeyId, KeyVersion, MediaContent},
    time::Timestamp,
};

/// The state of every key, the requests that took effect and the work that was reported: what the events of a log come to. Holds no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyTable {
    keys: BTreeMap<KeyId, KeyRecord>,
    answered: AnsweredRequests,
    reported: AnsweredRequests,
}

/// The state of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// When it rotates.
    pub policy: KeyRotationPolicy,
    /// Its state.
    pub state: KeyState,
    /// The oldest version that decrypts; 1 unless it was raised.
    pub decrypt_from: KeyVersion,
    /// Its versions, oldest first; never empty.
    pub versions: Vec<VersionRecord>,
    /// Where the media keys of its contents come from. Empty for a key that has ended.
    pub media: MediaPeriods,
}

/// The state of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRecord {
    /// Its number.
    pub version: KeyVersion,
    /// Its state.
    pub state: VersionState,
    /// When it was made.
    pub created_at: Timestamp,
    /// Uses granted so far.
    pub uses: u64,
    /// SHA-256 of the wrapped key record; `None` where it was never wrapped.
    pub record: Option<Digest>,
}

/// State of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// In use.
    Active,
    /// Not usable until resumed.
    Suspended,
    /// Not usable any more.
    Revoked,
    /// Not usable any more, and its wrapped records are deleted.
    Destroyed,
}

/// State of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionState {
    /// Encrypts and decrypts. Exactly one version of an active key is in this state.
    Active,
    /// Decrypts only.
    Deactivated,
    /// Does neither.
    Revoked,
    /// Does neither, and its wrapped record is deleted.
    Destroyed,
}

impl KeyRecord {
    /// The version that new messages use.
    pub fn active(&self) -> Option<&VersionRecord> {
        self.versions.iter().rev().find(|version| version.state == VersionState::Active)
    }

    /// A version by its number.
    pub fn version(&self, version: KeyVersion) -> Option<&VersionRecord> {
        self.versions.iter().find(|record| record.version == version)
    }

    /// Whether the active version should be replaced at `now`; [`RotationNeed::None`] for a key that is not in use.
    pub fn rotation_need(&self, now: Timestamp) -> RotationNeed {
        match (self.state, self.active()) {
            (KeyState::Active, Some(active)) => self.policy.need(active.created_at, active.uses, now),
            _ => RotationNeed::None,
        }
    }

    /// A version that messages may still be read under.
    ///
    /// # Errors
    /// [`KeyError::NoSuchVersion`], [`KeyError::Revoked`], [`KeyError::BelowMinimum`].
    pub fn readable(&self, version: KeyVersion) -> Result<&VersionRecord, KeyError> {
        let record = self.version(version).ok_or(KeyError::NoSuchVersion(version))?;
        if matches!(record.state, VersionState::Revoked | VersionState::Destroyed) {
            return Err(KeyError::Revoked);
        }
        if version < self.decrypt_from {
            return Err(KeyError::BelowMinimum { version, minimum: self.decrypt_from });
        }
        Ok(record)
    }

    fn known(&mut self, version: KeyVersion) -> Option<&mut VersionRecord> {
        self.versions.iter_mut().find(|record| record.version == version)
    }

    /// What was destroyed stays so.
    fn deactivate(&mut self) {
        let active = self.versions.iter_mut().filter(|version| version.state == VersionState::Active);
        active.for_each(|version| version.state = VersionState::Deactivated);
    }

    fn set_versions(&mut self, state: VersionState) {
        let left = self.versions.iter_mut().filter(|version| version.state != VersionState::Destroyed);
        left.for_each(|version| version.state = state);
    }
}

impl KeyTable {
    /// A table without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// The requests that came with an idempotency key and took effect.
    pub const fn answered(&self) -> &AnsweredRequests {
        &self.answered
    }

    /// The newest reports of work, under [`Reported::tag`](crate::audit::Reported::tag).
    pub const fn reported(&self) -> &AnsweredRequests {
        &self.reported
    }

    /// One key.
    pub fn key(&self, id: &KeyId) -> Option<&KeyRecord> {
        self.keys.get(id)
    }

    /// Every key that ever was, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&KeyId, &KeyRecord)> {
        self.keys.iter()
    }

    /// The keys whose active version has come to `need` or beyond.
    pub fn needing(&self, need: RotationNeed, now: Timestamp) -> impl Iterator<Item = (&KeyId, &KeyRecord)> {
        self.iter().filter(move |(_, key)| key.rotation_need(now) >= need)
    }

    /// Takes a key from a snapshot, which has them by name.
    pub(super) fn put_back(&mut self, id: KeyId, key: KeyRecord) {
        self.keys.insert(id, key);
    }

    /// Takes an answered request from a snapshot, which has them in their order.
    pub(super) fn put_back_answered(&mut self, answered: Answered) {
        self.answered.insert(answered);
    }

    /// As [`KeyTable::put_back_answered`], a report.
    pub(super) fn put_back_reported(&mut self, reported: Answered) {
        self.reported.insert(reported);
    }

    /// The key that was put back last: the last by name.
    pub(super) fn last_put_back(&mut self) -> Option<&mut KeyRecord> {
        self.keys.last_entry().map(std::collections::btree_map::OccupiedEntry::into_mut)
    }

    /// A key that is neither suspended nor ended.
    ///
    /// # Errors
    /// [`KeyError::Unknown`], [`KeyError::Suspended`], [`KeyError::Revoked`].
    pub fn usable(&self, id: &KeyId) -> Result<&KeyRecord, KeyError> {
        let key = self.key(id).ok_or(KeyError::Unknown)?;
        match key.state {
            KeyState::Active => Ok(key),
            KeyState::Suspended => Err(KeyError::Suspended),
            KeyState::Revoked | KeyState::Destroyed => Err(KeyError::Revoked),
        }
    }

    /// Takes an event into the state. Events that concern no key change nothing.
    ///
    /// # Errors
    /// [`FoldError`] where the event contradicts the state, which is unchanged then. Uses beyond a limit are no
    /// contradiction: a use is counted even if its caller was refused in the end.
    pub fn apply(&mut self, event: &AuditEvent) -> Result<(), FoldError> {
        self.apply_to_keys(event)?;
        if let Some(tag) = event.request {
            self.answered.insert(Answered::by(event, tag));
        }
        if let Some(tag) = event.report_tag() {
            self.reported.insert(Answered { key: None, version: None, ..Answered::by(event, tag) });
        }
        Ok(())
    }

    fn apply_to_keys(&mut self, event: &AuditEvent) -> Result<(), FoldError> {
        let contradiction = |reason| FoldError { sequence: event.sequence, reason };
        let kinds = [
            AuditEventType::KeyGenerated,
            AuditEventType::KeyRotated,
            AuditEventType::KeyRevoked,
            AuditEventType::KeyUsed,
        ];
        let (true, Some(body)) = (kinds.contains(&event.event_type), &event.body) else { return Ok(()) };
        let id = event.key_id.as_deref().and_then(|id| id.parse::<KeyId>().ok());
        let id = id.ok_or_else(|| contradiction("it names no key"))?;
        let version = || event.key_version.ok_or_else(|| contradiction("it names no version"));
        let no_version = || contradiction("the version does not exist");
        match (event.event_type, body) {
            (AuditEventType::KeyGenerated, EventBody::KeyCreated { record, .. }) => {
                if self.keys.contains_key(&id) {
                    return Err(contradiction("the key exists already"));
                }
                if version()? != KeyVersion(1) {
                    return Err(contradiction("a key starts with version 1"));
                }
                let first = VersionRecord::new(KeyVersion(1), event.time, *record);
                let policy = policy_of(body).ok_or_else(|| contradiction("it has no policy"))?;
                let (media, decrypt_from) = (MediaPeriods::default(), KeyVersion(1));
                let (state, versions) = (KeyState::Active, vec![first]);
                self.keys.insert(id, KeyRecord { policy, state, decrypt_from, versions, media });
            }
            (AuditEventType::KeyRotated, EventBody::KeyCreated { record, .. }) => {
                let key = self.keys.get_mut(&id).ok_or_else(|| contradiction("the key does not exist"))?;
                if key.state != KeyState::Active {
                    return Err(contradiction("the key is not active"));
                }
                if key.versions.last().and_then(|last| last.version.next()) != Some(version()?) {
                    return Err(contradiction("the version does not follow on the last"));
                }
                key.deactivate();
                key.versions.push(VersionRecord::new(version()?, event.time, *record));
            }
            (AuditEventType::KeyRevoked, EventBody::KeyChanged { change }) => {
                let key = self.keys.get_mut(&id).ok_or_else(|| contradiction("the key does not exist"))?;
                let ended = matches!(key.state, KeyState::Revoked | KeyState::Destroyed);
                if key.state == KeyState::Destroyed || ended && *change != KeyChange::Destroyed {
                    return Err(contradiction("the key was ended before"));
                }
                match change {
                    KeyChange::Suspended => key.state = KeyState::Suspended,
                    KeyChange::Resumed => key.state = KeyState::Active,
                    KeyChange::DecryptFrom => key.decrypt_from = key.known(version()?).ok_or_else(no_version)?.version,
                    KeyChange::Destroyed if event.key_version.is_some() => {
                        let destroyed = key.known(version()?).ok_or_else(no_version)?;
                        if destroyed.state == VersionState::Active {
                            return Err(contradiction("the active version was destroyed alone"));
                        }
                        destroyed.state = VersionState::Destroyed;
                    }
                    KeyChange::Revoked => {
                        key.state = KeyState::Revoked;
                        key.media = MediaPeriods::default();
                        key.set_versions(VersionState::Revoked);
                    }
                    KeyChange::Destroyed => {
                        key.state = KeyState::Destroyed;
                        key.media = MediaPeriods::default();
                        key.set_versions(VersionState::Destroyed);
                    }
                }
            }
            (AuditEventType::KeyUsed, EventBody::KeyUsed { operation, uses, period, .. }) => {
                let key = self.keys.get_mut(&id).ok_or_else(|| contradiction("the key does not exist"))?;
                let wanted = key.known(version()?).ok_or_else(no_version)?.version;
                if period.is_some() != (*operation == KeyOperation::DeriveMediaKey) {
                    return Err(contradiction("media keys have a period, and nothing else has one"));
                }
                if let Some(period) = *period {
                    let content = event.content_id.as_deref().and_then(|content| content.parse::<MediaContent>().ok());
                    let content = content.ok_or_else(|| contradiction("it names no content"))?;
                    if !key.media.pin(&content, period, wanted) {
                        return Err(contradiction("the period's media key comes from another version"));
                    }
                }
                let used = key.known(wanted).ok_or_else(no_version)?;
                used.uses = used.uses.saturating_add(*uses);
            }
            _ => return Err(contradiction("its body is of another kind")),
        }
        Ok(())
    }
}

impl VersionRecord {
    const fn new(version: KeyVersion, created_at: Timestamp, record: Option<Digest>) -> Self {
        Self { version, state: VersionState::Active, created_at, uses: 0, record }
    }
}

const fn policy_of(body: &EventBody) -> Option<KeyRotationPolicy> {
    match body {
        EventBody::KeyCreated { max_age_secs, max_uses, require_attestation, .. } => Some(KeyRotationPolicy {
            max_age_secs: *max_age_secs,
            max_uses: *max_uses,
            require_attestation: *require_attestation,
        }),
        _ => None,
    }
}
