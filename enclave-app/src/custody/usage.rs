//! Using keys.

use std::sync::Arc;

use transcode_confidential::{
    audit::{AuditEventType, EventBody, EventDraft, KeyOperation, Outcome, Receipt},
    ids::{Digest, KeyId, KeyVersion, Principal, Sequence},
    keys::{KeyError, KeyRequest, RotationNeed},
    message::EncryptionContext,
};

use super::{Custody, CustodyError};
use crate::{
    keyring::{KeyInUse, UnwrapError},
    kms::WrapContext,
    ledger::{Entry, Recorded},
};

/// What a use is about, for the record.
#[derive(Debug, Clone)]
pub struct Purpose<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// What for.
    pub operation: KeyOperation,
    /// The encryption context of the message.
    pub context: &'a EncryptionContext,
    /// A name for the content.
    pub content_id: Option<&'a str>,
}

/// A use of a key that is durably on the record.
pub struct UseGrant {
    /// The version that it is a use of.
    pub version: KeyVersion,
    /// Receipt of the `KeyUsed` event.
    pub receipt: Receipt,
    /// The material.
    pub key: KeyInUse,
    /// Position of the `KeyUsed` event.
    pub began: Sequence,
}

/// A use that has been granted and has its place in the log, but is not durable yet: nothing may be released.
#[must_use = "the use is not durable yet"]
pub struct PendingUse {
    /// The version that it is a use of.
    pub version: KeyVersion,
    recorded: Recorded,
}

/// How a stream of content ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Position of the `KeyUsed` event that began it.
    pub began: Sequence,
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes released.
    pub bytes_out: u64,
    /// SHA-256 of the bytes released.
    pub digest: Option<Digest>,
}

impl Custody {
    /// Uses the active version once: counts the use, waits until it is durable, gives the material.
    ///
    /// # Errors
    /// [`CustodyError`]. [`KeyError::RotationDue`] has begun the rotation that it waits for.
    pub async fn begin_use(self: &Arc<Self>, id: &KeyId, purpose: &Purpose<'_>) -> Result<UseGrant, CustodyError> {
        let pending = self.reserve_use(id, None, purpose).await?;
        let key = self.material(id, pending.version).await?;
        self.confirm_use(pending, key).await
    }

    /// Grants a use and gives it its place in the log. `version` names the version of a message that is read.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub async fn reserve_use(
        self: &Arc<Self>,
        id: &KeyId,
        version: Option<KeyVersion>,
        purpose: &Purpose<'_>,
    ) -> Result<PendingUse, CustodyError> {
        if self.clock.has_drifted() {
            return Err(CustodyError::ClockDrifted);
        }
        let context = (!purpose.context.is_empty()).then(|| Digest::of(&purpose.context.serialize()));
        let request = KeyRequest::Use { operation: purpose.operation, version, context };
        let granted = self.ledger.decide(|keys, now| {
            let draft = keys.decide(id, &request, now)?.principal(purpose.principal);
            Ok(Entry::from(match purpose.content_id {
                Some(content_id) => draft.content(content_id),
                None => draft,
            }))
        });
        let recorded = match granted.await.map_err(CustodyError::from) {
            Ok(recorded) => recorded,
            Err(error) => {
                if matches!(error, CustodyError::Key(KeyError::RotationDue)) {
                    self.rotate_if_needed(id);
                }
                return Err(error);
            }
        };
        let due = |keys: &transcode_confidential::keys::KeyTable, now| {
            keys.key(id).is_some_and(|key| key.rotation_need(now) >= RotationNeed::Due)
        };
        if purpose.operation.is_counted() && self.ledger.with_keys(due) {
            self.rotate_if_needed(id);
        }
        let version = recorded.event.key_version.ok_or(KeyError::Unknown)?;
        Ok(PendingUse { version, recorded })
    }

    /// Waits until a use is durable.
    ///
    /// # Errors
    /// [`CustodyError::AuditUnavailable`].
    pub async fn confirm_use(&self, pending: PendingUse, key: KeyInUse) -> Result<UseGrant, CustodyError> {
        let (event, receipt) = pending.recorded.persisted().await?;
        if key.revoked().is_cancelled() {
            return Err(KeyError::Revoked.into());
        }
        Ok(UseGrant { version: pending.version, receipt, key, began: event.sequence })
    }

    /// Material of a version that is not revoked. Releases nothing by itself.
    ///
    /// # Errors
    /// [`CustodyError::Kms`], [`CustodyError::RecordMissing`], [`CustodyError::Key`].
    pub async fn material(&self, id: &KeyId, version: KeyVersion) -> Result<KeyInUse, CustodyError> {
        let context = || WrapContext::content_key(self.log_id(), id.clone(), version);
        let found = self.keyring.material(&self.kms, context, id, version).await;
        match found {
            Ok(Some(key)) => Ok(key),
            Ok(None) => {
                self.ledger.with_keys(|keys, _| keys.usable(id).map(|_| ()))?;
                Err(CustodyError::RecordMissing)
            }
            Err(UnwrapError::Kms(error)) => {
                let error = self.kms_health.failed(error);
                Err(self.kms_failed(Some((id, version)), error).await)
            }
            Err(UnwrapError::OtherKey) => {
                let body = EventBody::Refused { code: "OTHER_KEY".into(), count: 1 };
                let draft =
                    EventDraft::new(AuditEventType::PolicyViolation, "KMS unwrapped another key than was wrapped")
                        .key(id, Some(version))
                        .body(body);
                let _ = self.ledger.record(draft.into()).await;
                Err(CustodyError::OtherKey)
            }
        }
    }

    /// Records how a stream ended. Nobody waits for it: everything was released under the `KeyUsed` event.
    pub async fn end_use(
        &self,
        id: &KeyId,
        version: KeyVersion,
        principal: &Principal,
        content_id: Option<&str>,
        ended: Ended,
    ) {
        let details = match ended.outcome {
            Outcome::Complete => "content processed",
            _ => "content given up part of the way",
        };
        let draft = EventDraft::new(AuditEventType::ContentProcessed, details)
            .key(id, Some(version))
            .principal(principal)
            .body(EventBody::Processed {
                began: Some(ended.began),
                outcome: ended.outcome,
                bytes_in: ended.bytes_in,
                bytes_out: ended.bytes_out,
                digest: ended.digest,
            });
        let draft = match content_id {
            Some(content_id) => draft.content(content_id),
            None => draft,
        };
        if self.ledger.record(draft.into()).await.is_err() {
            tracing::warn!(key = %id, "the end of a stream could not be recorded");
        }
    }
}
