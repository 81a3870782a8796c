use super::{KeyRotationPolicy, KeyTable};
use crate::{
    audit::{AuditEventType, CreationReason, EventBody, EventDraft, KeyChange, KeyOperation},
    ids::{Digest, KeyId, KeyVersion, MediaContent, Period},
    keys::{KeyError, KeyState, RotationNeed, VersionState},
    time::Timestamp,
};

/// What may be asked of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyRequest {
    /// Make a key and its first version.
    Generate {
        /// When it rotates.
        policy: KeyRotationPolicy,
        /// SHA-256 of the wrapped key record, where the key is wrapped.
        record: Option<Digest>,
    },
    /// Make the next version.
    Rotate {
        /// Only where this version is active.
        expected: Option<KeyVersion>,
        /// Why.
        reason: CreationReason,
        /// SHA-256 of the wrapped key record, where the key is wrapped.
        record: Option<Digest>,
    },
    /// Revoke, destroy, suspend or resume the whole key. [`KeyChange::DecryptFrom`] has a request of its own.
    Change(KeyChange),
    /// Destroy one version that is not active.
    DestroyVersion(KeyVersion),
    /// Decrypt from this version on only. It may be lowered again.
    DecryptFrom(KeyVersion),
    /// Begin a use.
    Use {
        /// What for.
        operation: KeyOperation,
        /// The version that a message names, for operations that read one; any other must name the active one. `None` stands
        /// for the active one.
        version: Option<KeyVersion>,
        /// SHA-256 of the serialized encryption context.
        context: Option<Digest>,
    },
    /// Derive the media key of a period. The first time it is a use of the active version, which the period keeps; from then
    /// on it is recorded, and not counted.
    MediaKey {
        /// The content.
        content: MediaContent,
        /// The period.
        period: Period,
    },
}

impl KeyTable {
    /// Checks that the version that a caller expects to be active is; `None` expects nothing.
    ///
    /// # Errors
    /// [`KeyError::VersionMismatch`], [`KeyError::Unknown`], and [`KeyError::Revoked`] where no version is active.
    pub fn expect_active(&self, id: &KeyId, expected: Option<KeyVersion>) -> Result<(), KeyError> {
        let Some(expected) = expected else { return Ok(()) };
        let active = self.key(id).ok_or(KeyError::Unknown)?.active().ok_or(KeyError::Revoked)?.version;
        if expected == active { Ok(()) } else { Err(KeyError::VersionMismatch { expected, active }) }
    }

    /// Decides a request: the event that grants it, which takes effect with [`KeyTable::apply`], or the reason to refuse it.
    ///
    /// Pure: state, request and time alone determine the answer. Deciding and applying must happen in one critical section;
    /// then no two uses are ever granted out of the same allowance.
    ///
    /// # Errors
    /// [`KeyError`], the first that applies.
    pub fn decide(&self, id: &KeyId, request: &KeyRequest, now: Timestamp) -> Result<EventDraft, KeyError> {
        match request {
            KeyRequest::Generate { policy, record } => self.decide_generate(id, policy, *record),
            KeyRequest::Rotate { expected, reason, record } => self.decide_rotate(id, *expected, *reason, *record),
            KeyRequest::Change(change) => self.decide_change(id, *change),
            KeyRequest::DestroyVersion(version) => self.decide_destroy_version(id, *version),
            KeyRequest::DecryptFrom(version) => self.decide_decrypt_from(id, *version),
            KeyRequest::Use { operation, version, context } => self.decide_use(id, *operation, *version, *context, now),
            KeyRequest::MediaKey { content, period } => self.decide_media_key(id, content, *period, now),
        }
    }

    fn decide_generate(
        &self,
        id: &KeyId,
        policy: &KeyRotationPolicy,
        record: Option<Digest>,
    ) -> Result<EventDraft, KeyError> {
        policy.check()?;
        if self.key(id).is_some() {
            return Err(KeyError::Exists);
        }
        let body = created(policy, CreationReason::Initial, record);
        Ok(EventDraft::new(AuditEventType::KeyGenerated, "256-bit content key generated")
            .key(id, Some(KeyVersion(1)))
            .body(body))
    }

    fn decide_rotate(
        &self,
        id: &KeyId,
        expected: Option<KeyVersion>,
        reason: CreationReason,
        record: Option<Digest>,
    ) -> Result<EventDraft, KeyError> {
        let key = self.usable(id)?;
        let active = key.active().ok_or(KeyError::Revoked)?.version;
        if let Some(expected) = expected.filter(|expected| *expected != active) {
            return Err(KeyError::VersionMismatch { expected, active });
        }
        let next = active.next().ok_or(KeyError::VersionsExhausted)?;
        Ok(EventDraft::new(AuditEventType::KeyRotated, format!("rotated from version {active} to {next}"))
            .key(id, Some(next))
            .body(created(&key.policy, reason, record)))
    }

    fn decide_change(&self, id: &KeyId, change: KeyChange) -> Result<EventDraft, KeyError> {
        let key = self.key(id).ok_or(KeyError::Unknown)?;
        let details = match (change, key.state) {
            (KeyChange::Revoked, KeyState::Active | KeyState::Suspended) => "all versions revoked",
            (KeyChange::Destroyed, KeyState::Active | KeyState::Suspended | KeyState::Revoked) => {
                "all versions destroyed"
            }
            (KeyChange::Suspended, KeyState::Active) => "suspended",
            (KeyChange::Resumed, KeyState::Suspended) => "resumed",
            (KeyChange::DecryptFrom, _) => return Err(KeyError::Policy("name the version to decrypt from")),
            (KeyChange::Resumed, KeyState::Active) => return Err(KeyError::NotSuspended),
            (KeyChange::Suspended, KeyState::Suspended) => return Err(KeyError::Suspended),
            (_, KeyState::Revoked | KeyState::Destroyed) => return Err(KeyError::Revoked),
        };
        Ok(EventDraft::new(AuditEventType::KeyRevoked, details).key(id, None).body(EventBody::KeyChanged { change }))
    }

    fn decide_destroy_version(&self, id: &KeyId, version: KeyVersion) -> Result<EventDraft, KeyError> {
        let key = self.key(id).ok_or(KeyError::Unknown)?;
        match (key.state, key.version(version).ok_or(KeyError::NoSuchVersion(version))?.state) {
            (KeyState::Revoked | KeyState::Destroyed, _) | (_, VersionState::Revoked | VersionState::Destroyed) => {
                Err(KeyError::Revoked)
            }
            (_, VersionState::Active) => Err(KeyError::ActiveVersion(version)),
            (_, VersionState::Deactivated) => {
                Ok(EventDraft::new(AuditEventType::KeyRevoked, format!("version {version} destroyed"))
                    .key(id, Some(version))
                    .body(EventBody::KeyChanged { change: KeyChange::Destroyed }))
            }
        }
    }

    fn decide_decrypt_from(&self, id: &KeyId, version: KeyVersion) -> Result<EventDraft, KeyError> {
        let key = self.key(id).ok_or(KeyError::Unknown)?;
        if matches!(key.state, KeyState::Revoked | KeyState::Destroyed) {
            return Err(KeyError::Revoked);
        }
        let _ = key.version(version).ok_or(KeyError::NoSuchVersion(version))?;
        if key.decrypt_from == version {
            return Err(KeyError::Unchanged(version));
        }
        let details = format!("versions from {version} on decrypt, before it was {}", key.decrypt_from);
        Ok(EventDraft::new(AuditEventType::KeyRevoked, details)
            .key(id, Some(version))
            .body(EventBody::KeyChanged { change: KeyChange::DecryptFrom }))
    }

    fn decide_use(
        &self,
        id: &KeyId,
        operation: KeyOperation,
        version: Option<KeyVersion>,
        context: Option<Digest>,
        now: Timestamp,
    ) -> Result<EventDraft, KeyError> {
        let key = self.usable(id)?;
        let active = key.active().ok_or(KeyError::Revoked)?;
        let version = match (version, operation) {
            (Some(version), KeyOperation::Decrypt | KeyOperation::UnwrapDataKey) => key.readable(version)?,
            // Read under the version that the message names, wrapped under the active one.
            (Some(version), KeyOperation::Rewrap) => key.readable(version).map(|_| active)?,
            (Some(expected), _) if expected != active.version => {
                return Err(KeyError::VersionMismatch { expected, active: active.version });
            }
            _ => active,
        };
        let uses = u64::from(operation.is_counted());
        if uses > 0 && key.policy.need(version.created_at, version.uses, now) == RotationNeed::Required {
            return Err(KeyError::RotationDue);
        }
        let details = match operation {
            KeyOperation::Encrypt => "message encrypted",
            KeyOperation::Decrypt => "message decrypted",
            KeyOperation::IssueDataKey => "data key issued",
            KeyOperation::UnwrapDataKey => "data key unwrapped",
            KeyOperation::DeriveMediaKey => return Err(KeyError::NoPeriod),
            KeyOperation::Rewrap => "message encrypted anew under the active version",
        };
        Ok(EventDraft::new(AuditEventType::KeyUsed, details).key(id, Some(version.version)).body(EventBody::KeyUsed {
            operation,
            uses,
            context,
            period: None,
        }))
    }

    fn decide_media_key(
        &self,
        id: &KeyId,
        content: &MediaContent,
        period: Period,
        now: Timestamp,
    ) -> Result<EventDraft, KeyError> {
        let key = self.usable(id)?;
        let pinned = key.media.version(content, period);
        let version = match pinned {
            Some(pinned) => key.readable(pinned)?,
            None => key.active().ok_or(KeyError::Revoked)?,
        };
        let details = match pinned {
            Some(_) => "media key derived again",
            None if key.policy.need(version.created_at, version.uses, now) == RotationNeed::Required => {
                return Err(KeyError::RotationDue);
            }
            None if !key.media.has_room(content, period, version.version) => return Err(KeyError::TooManyPeriods),
            None => "media key derived",
        };
        let body = EventBody::KeyUsed {
            operation: KeyOperation::DeriveMediaKey,
            uses: u64::from(pinned.is_none()),
            context: None,
            period: Some(period),
        };
        Ok(EventDraft::new(AuditEventType::KeyUsed, details)
            .key(id, Some(version.version))
            .content(content.as_str())
            .body(body))
    }
}

const fn created(policy: &KeyRotationPolicy, reason: CreationReason, record: Option<Digest>) -> EventBody {
    EventBody::KeyCreated {
        record,
        max_age_secs: policy.max_age_secs,
        max_uses: policy.max_uses,
        require_attestation: policy.require_attestation,
        reason,
    }
}
