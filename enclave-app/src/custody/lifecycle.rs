//! Making and rotating keys.

use std::sync::Arc;

use transcode_confidential::{
    attestation::Purpose,
    audit::{
        AuditEventType, CreationReason, EventBody, EventDraft,
        segment::{Record, RecordKind},
    },
    ids::{Digest, KeyId, KeyVersion},
    keys::{KeyError, KeyRequest, KeyRotationPolicy, RotationNeed},
};

use super::{Asked, Changed, Custody, CustodyError};
use crate::{
    keyring::WrappedRecord,
    kms::{DataKey, KmsError, WrapContext},
    ledger::{Entry, Recorded},
};

impl Custody {
    /// Makes a key and its first version.
    ///
    /// # Errors
    /// [`CustodyError`]; nothing was made then, as far as the caller may rely on.
    pub async fn generate(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        policy: KeyRotationPolicy,
    ) -> Result<Changed, CustodyError> {
        let id = asked.permit.key();
        let _single = self.begin(id).ok_or(CustodyError::InProgress)?;
        // A look ahead, so that a request that must fail costs no call to KMS.
        let _ = self.look_ahead(id, &KeyRequest::Generate { policy, record: None })?;
        let request = |record| KeyRequest::Generate { policy, record: Some(record) };
        self.create(Some(asked), id, KeyVersion(1), request).await
    }

    /// Makes the next version of a key, after attesting ourselves where its policy requires that. Where nobody asked it is we
    /// who rotate, because it is due.
    ///
    /// # Errors
    /// [`CustodyError`]; the active version stays what it was, as far as the caller may rely on.
    pub async fn rotate(
        self: &Arc<Self>,
        asked: Option<&Asked<'_>>,
        id: &KeyId,
        reason: CreationReason,
    ) -> Result<Changed, CustodyError> {
        let _single = self.begin(id).ok_or(CustodyError::InProgress)?;
        let expected = asked.and_then(|asked| asked.expected);
        let ahead = self.look_ahead(id, &KeyRequest::Rotate { expected, reason, record: None })?;
        let next = ahead.key_version.ok_or(KeyError::VersionsExhausted)?;
        let attest = self.ledger.with_keys(|keys, _| keys.key(id).is_some_and(|key| key.policy.require_attestation));
        if attest {
            self.attest_rotation(id, next).await?;
        }
        // Between the look and the decision the active version cannot change: this rotation is the only one under way.
        let request = |record| KeyRequest::Rotate { expected, reason, record: Some(record) };
        self.create(asked, id, next, request).await
    }

    /// Begins a rotation in the background where the key needs one and none is under way.
    pub fn rotate_if_needed(self: &Arc<Self>, id: &KeyId) {
        let reason = self.ledger.with_keys(|keys, now| {
            let key = keys.key(id)?;
            let uses = key.active().map_or(0, |active| active.uses);
            (key.rotation_need(now) >= RotationNeed::Due).then(|| {
                if u128::from(uses) * 5 >= u128::from(key.policy.max_uses) * 4 {
                    CreationReason::Uses
                } else {
                    CreationReason::Age
                }
            })
        });
        let Some(reason) = reason else { return };
        let Some(turn) = self.rotations.begin(id) else { return };
        let (custody, id) = (Arc::clone(self), id.clone());
        tokio::spawn(async move {
            match custody.rotate(None, &id, reason).await {
                Ok(_) | Err(CustodyError::InProgress) => turn.succeeded(),
                Err(error) => {
                    let pause = turn.failed();
                    tracing::warn!(key = %id, %error, ?pause, "a rotation that is due failed and will be tried again");
                }
            }
        });
    }

    /// Begins the rotations that are due.
    pub fn sweep(self: &Arc<Self>) {
        let due: Vec<KeyId> =
            self.ledger.with_keys(|keys, now| keys.needing(RotationNeed::Due, now).map(|(id, _)| id.clone()).collect());
        due.iter().for_each(|id| self.rotate_if_needed(id));
    }

    fn look_ahead(&self, id: &KeyId, request: &KeyRequest) -> Result<EventDraft, CustodyError> {
        if self.clock.has_drifted() {
            return Err(CustodyError::ClockDrifted);
        }
        Ok(self.ledger.with_keys(|keys, now| keys.decide(id, request, now))?)
    }

    async fn create(
        &self,
        asked: Option<&Asked<'_>>,
        id: &KeyId,
        version: KeyVersion,
        request: impl Fn(Digest) -> KeyRequest + Send,
    ) -> Result<Changed, CustodyError> {
        let context = WrapContext::content_key(self.log_id(), id.clone(), version);
        let made = self.kms_health.observe(self.kms.generate_data_key(&context).await);
        let DataKey { plaintext, ciphertext } = match made {
            Ok(made) => made,
            Err(error) => return Err(self.kms_failed(Some((id, version)), error).await),
        };
        let wrapped = WrappedRecord::new(ciphertext, self.kms.key(), &plaintext);
        let record = wrapped.to_bytes();
        let request = request(Digest::of(&record));
        let recorded = self.ledger.decide(|keys, now| {
            asked.map_or(Ok(()), |asked| asked.permit.check())?;
            let draft = keys.decide(id, &request, now)?;
            let draft = match asked {
                Some(asked) => draft.principal(asked.permit.principal()).request(asked.tag),
                None => draft,
            };
            self.keyring.insert_material(id.clone(), version, wrapped, plaintext);
            Ok(Entry { draft, records: vec![Record::new(RecordKind::WrappedKey, record)] })
        });
        self.changed(id, recorded.await?).await
    }

    pub(super) async fn changed(&self, id: &KeyId, recorded: Recorded) -> Result<Changed, CustodyError> {
        let (_event, receipt) = recorded.persisted().await?;
        let key = self.info(id).ok_or(KeyError::Unknown)?;
        Ok(Changed { key, receipt })
    }

    async fn attest_rotation(&self, id: &KeyId, next: KeyVersion) -> Result<(), CustodyError> {
        let body = |document, reason| EventBody::Attestation { purpose: Purpose::Head, document, reason };
        match self.attestor.attest_head(self.ledger.persisted()).await {
            Ok(document) => {
                let draft = EventDraft::new(AuditEventType::AttestationVerified, "attested before rotation")
                    .key(id, Some(next))
                    .body(body(Some(Digest::of(&document)), None));
                let records = vec![Record::new(RecordKind::Attestation, document)];
                self.ledger.record(Entry { draft, records }).await?.persisted().await?;
                Ok(())
            }
            Err(failure) => {
                let draft = EventDraft::new(AuditEventType::AttestationFailed, "rotation refused: attestation failed")
                    .key(id, Some(next))
                    .body(body(None, Some(failure.reason())));
                let _ = self.ledger.record(draft.into()).await?;
                Err(failure.into())
            }
        }
    }

    /// Puts on the record what KMS did wrong, or that it refused our attestation.
    pub(crate) async fn kms_failed(&self, key: Option<(&KeyId, KeyVersion)>, error: KmsError) -> CustodyError {
        let draft = if error.is_attestation_refused() {
            let body =
                EventBody::Attestation { purpose: Purpose::Kms, document: None, reason: Some(error.cause().into()) };
            Some(EventDraft::new(AuditEventType::AttestationFailed, "KMS refused the attestation").body(body))
        } else if error.is_bad_reply() {
            let body = EventBody::Refused { code: error.cause().into(), count: 1 };
            Some(EventDraft::new(AuditEventType::PolicyViolation, "a reply of KMS was refused").body(body))
        } else {
            None
        };
        let recorded = draft.and_then(|draft| Some((draft, self.kms_failures.record(error.cause())?)));
        if let Some((mut draft, left_out)) = recorded {
            if left_out > 0 {
                draft.details = format!("{}; {left_out} more of this cause before it", draft.details);
            }
            let draft = match key {
                Some((id, version)) => draft.key(id, Some(version)),
                None => draft,
            };
            // Nothing is released, so nobody waits for this event.
            let _ = self.ledger.record(draft.into()).await;
        }
        CustodyError::Kms(error)
    }
}
