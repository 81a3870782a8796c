//! Using keys.

use std::sync::Arc;

use transcode_confidential::{
    audit::{AuditEventType, EventBody, EventDraft, KeyOperation, Outcome, Receipt},
    ids::{Digest, KeyId, KeyVersion, Sequence},
    keys::{KeyError, KeyRequest, RotationNeed},
    message::EncryptionContext,
};

use super::{Custody, CustodyError};
use crate::{
    grants::Permit,
    keyring::{KeyInUse, UnwrapError},
    kms::WrapContext,
    ledger::{Entry, Recorded},
};

/// What a use is about, for the record.
#[derive(Clone)]
pub struct Purpose<'a> {
    /// Who asks, and for which key.
    pub permit: &'a Permit,
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
    /// Records the end.
    pub open: OpenUse,
}

/// A use that has been granted and has its place in the log, but is not durable yet: nothing may be released.
#[must_use = "the use is not durable yet"]
pub struct PendingUse {
    /// The version that it is a use of.
    pub version: KeyVersion,
    recorded: Recorded,
    open: OpenUse,
}

/// A use that has begun. However it ends, that goes on the record when this is dropped.
pub struct OpenUse {
    custody: Arc<Custody>,
    permit: Permit,
    version: KeyVersion,
    content_id: Option<String>,
    /// How it ends, as far as it has come: given up, unless somebody says that it is complete.
    pub ended: Ended,
}

impl OpenUse {
    /// What lets it go on.
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }
}

impl Drop for OpenUse {
    fn drop(&mut self) {
        self.custody.end_use(&self.permit, self.version, self.content_id.as_deref(), &self.ended);
    }
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
    pub async fn begin_use(self: &Arc<Self>, purpose: &Purpose<'_>) -> Result<UseGrant, CustodyError> {
        let pending = self.reserve_use(None, purpose).await?;
        let key = self.material(purpose.permit.key(), pending.version).await?;
        self.confirm_use(pending, key).await
    }

    /// Grants a use and gives it its place in the log. `version` names the version of a message that is
    /// read; where that is encrypted anew, the use is one of the active version.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub async fn reserve_use(
        self: &Arc<Self>,
        version: Option<KeyVersion>,
        purpose: &Purpose<'_>,
    ) -> Result<PendingUse, CustodyError> {
        let recorded = self.record_use(version, purpose).await?;
        let version = recorded.event.key_version.ok_or(KeyError::Unknown)?;
        let open = OpenUse {
            custody: Arc::clone(self),
            permit: purpose.permit.clone(),
            version,
            content_id: purpose.content_id.map(str::to_owned),
            ended: Ended {
                began: recorded.event.sequence,
                outcome: Outcome::Aborted,
                bytes_in: 0,
                bytes_out: 0,
                digest: None,
            },
        };
        Ok(PendingUse { version, recorded, open })
    }

    /// Grants a use and gives its event a place in the log; begins the rotation that it makes due.
    pub(super) async fn record_use(
        self: &Arc<Self>,
        version: Option<KeyVersion>,
        purpose: &Purpose<'_>,
    ) -> Result<Recorded, CustodyError> {
        let context = (!purpose.context.is_empty()).then(|| Digest::of(&purpose.context.serialize()));
        let request = KeyRequest::Use { operation: purpose.operation, version, context };
        self.grant_use(&request, purpose.permit, purpose.content_id).await
    }

    /// Grants a use of any kind and gives it its place in the log; begins the rotation that it finds due.
    pub(super) async fn grant_use(
        self: &Arc<Self>,
        request: &KeyRequest,
        permit: &Permit,
        content_id: Option<&str>,
    ) -> Result<Recorded, CustodyError> {
        let id = permit.key();
        if self.clock.has_drifted() {
            return Err(CustodyError::ClockDrifted);
        }
        // A refusal releases nothing, so it waits for nothing.
        let refused = self.ledger.with_keys(|keys, now| keys.decide(id, request, now).err());
        let granted = match refused {
            Some(error) => Err(error.into()),
            None => self.place_use(request, permit, content_id).await,
        };
        if matches!(granted, Err(CustodyError::Key(KeyError::RotationDue))) {
            self.rotate_if_needed(id);
        }
        let recorded = granted?;
        let counted = matches!(recorded.event.body, Some(EventBody::KeyUsed { uses: 1.., .. }));
        let due = |keys: &transcode_confidential::keys::KeyTable, now| {
            keys.key(id).is_some_and(|key| key.rotation_need(now) >= RotationNeed::Due)
        };
        if counted && self.ledger.with_keys(due) {
            self.rotate_if_needed(id);
        }
        Ok(recorded)
    }

    async fn place_use(
        &self,
        request: &KeyRequest,
        permit: &Permit,
        content_id: Option<&str>,
    ) -> Result<Recorded, CustodyError> {
        let granted = self.ledger.decide(|keys, now| {
            permit.check()?;
            let draft = keys.decide(permit.key(), request, now)?.principal(permit.principal());
            Ok(Entry::from(match content_id {
                Some(content_id) => draft.content(content_id),
                None => draft,
            }))
        });
        Ok(granted.await?)
    }

    /// Waits until a use is durable.
    ///
    /// # Errors
    /// [`CustodyError::AuditUnavailable`].
    pub async fn confirm_use(&self, pending: PendingUse, key: KeyInUse) -> Result<UseGrant, CustodyError> {
        let PendingUse { version, recorded, open } = pending;
        let (_event, receipt) = recorded.persisted().await?;
        if key.revoked().is_cancelled() {
            // Whatever ended it came between the decision and now.
            self.ledger.with_keys(|keys, _| keys.usable(open.permit.key()).map(drop))?;
            return Err(KeyError::Revoked.into());
        }
        Ok(UseGrant { version, receipt, key, open })
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
                if self.kms_failures.record("unwrapped-another-key").is_some() {
                    let _ = self.ledger.record(draft.into()).await;
                }
                Err(CustodyError::OtherKey)
            }
        }
    }

    /// Records how a stream ended. Nobody waits for it: everything was released under the `KeyUsed` event, and there are no
    /// more such ends than there were those.
    fn end_use(&self, permit: &Permit, version: KeyVersion, content_id: Option<&str>, ended: &Ended) {
        let details = match ended.outcome {
            Outcome::Complete => "content processed",
            _ => "content given up part of the way",
        };
        let draft = EventDraft::new(AuditEventType::ContentProcessed, details)
            .key(permit.key(), Some(version))
            .principal(permit.principal())
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
        if let Err(error) = self.ledger.decide_at_once(|_, _| Ok(draft.into())) {
            tracing::warn!(key = %permit.key(), %error, "the end of a stream could not be recorded");
        }
    }
}
