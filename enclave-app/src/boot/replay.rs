//! Reading back the log: every segment through the same verifier that auditors use, folded into the state to go on with.

use std::collections::BTreeMap;

use transcode_confidential::{
    attestation::{ImagePolicy, TrustRoot},
    audit::{
        AuditEvent, AuditEventType, Chain, EventBody, EventDraft, KeyOperation, LogState, Maintenance,
        segment::{Record, SegmentHeader, SegmentName},
        verify::{LogVerifier, SealedEvent, Tail, Verdict},
    },
    ids::{KeyVersion, LogId, Sequence},
    keys::{FoldError, KeyState, KeyTable, VersionState},
    protocol::host::{READ_LIMIT, Reply, Request, SEGMENTS_LIMIT, SegmentInfo},
    signature::PublicKey,
};

use super::BootError;
use crate::{
    host::{HostFailure, HostLink},
    keyring::{Keyring, WrappedRecord, is_by},
    kms::KeyArn,
};

/// Most streams without an end that are remembered: more than ever run at the same time.
const UNFINISHED_LIMIT: usize = 65_536;

/// Log, log key, and state at the last seal.
pub(super) type State = (LogId, PublicKey, LogState);

/// What a verified log comes to.
pub(super) struct Replayed {
    /// `None` for an empty store.
    pub(super) state: Option<State>,
    pub(super) chain: Chain,
    pub(super) keys: KeyTable,
    pub(super) keyring: Keyring,
    pub(super) log_key_record: Option<WrappedRecord>,
    pub(super) policy: Option<Vec<u8>>,
    pub(super) unfinished: Vec<Unfinished>,
    /// The event that tells of an unsealed tail, where there was one.
    pub(super) quarantined: Option<EventDraft>,
}

/// A stream that began and has no recorded end.
#[derive(Debug, Clone)]
pub(super) struct Unfinished {
    pub(super) began: Sequence,
    pub(super) key_id: Option<String>,
    pub(super) key_version: Option<KeyVersion>,
    pub(super) principal: Option<String>,
    pub(super) content_id: Option<String>,
}

/// Reads and verifies the parent's log. An unsealed tail is set aside there and never looked at again.
pub(super) async fn replay(
    link: &HostLink,
    root: &TrustRoot,
    image: &ImagePolicy,
    kms_key: &KeyArn,
) -> Result<Replayed, BootError> {
    let mut verifier = LogVerifier::new(root.clone(), image.clone());
    let mut fold = Fold::new(kms_key);
    let mut after = None;
    loop {
        let segments = segments(link, after).await?;
        let mut names = after.iter().copied().chain(segments.iter().map(|segment| segment.name));
        if !names.by_ref().is_sorted_by(|earlier, later| earlier < later) {
            return Err(HostFailure::Unexpected.into());
        }
        for segment in &segments {
            verifier.segment(segment.name);
            read(link, segment, &mut verifier, &mut fold).await?;
        }
        after = segments.last().map(|segment| segment.name);
        if segments.len() < SEGMENTS_LIMIT || verifier.has_failed() {
            break;
        }
    }
    let chain = verifier.sealed_chain().clone();
    let report = verifier.finish();
    if report.verdict != Verdict::Intact {
        return Err(BootError::Log(Box::new(report)));
    }
    if let Some(error) = fold.error {
        return Err(error.into());
    }
    let quarantined = match report.tail {
        Some(tail) => Some(quarantine(link, tail).await?),
        None => None,
    };
    let state = match (report.log_id, report.log_key, report.head) {
        (Some(log_id), Some(log_key), Some(head)) => Some((log_id, log_key, head)),
        _ => None,
    };
    Ok(Replayed {
        state,
        chain,
        keys: fold.keys,
        keyring: fold.keyring,
        log_key_record: fold.log_key_record,
        policy: fold.policy,
        unfinished: fold.unfinished.into_values().collect(),
        quarantined,
    })
}

async fn segments(link: &HostLink, after: Option<SegmentName>) -> Result<Vec<SegmentInfo>, HostFailure> {
    match link.call(Request::Segments { after }).await? {
        Reply::Segments(segments) => Ok(segments),
        _ => Err(HostFailure::Unexpected),
    }
}

async fn read(
    link: &HostLink,
    segment: &SegmentInfo,
    verifier: &mut LogVerifier,
    fold: &mut Fold<'_>,
) -> Result<(), HostFailure> {
    let mut offset = 0;
    while offset < segment.length && !verifier.has_failed() {
        let request = Request::Read { name: segment.name, offset, length: READ_LIMIT };
        let Reply::Bytes(bytes) = link.call(request).await? else { return Err(HostFailure::Unexpected) };
        if bytes.is_empty() {
            break;
        }
        offset += bytes.len() as u64;
        verifier.push(&bytes, &mut |sealed| fold.take(sealed));
    }
    Ok(())
}

async fn quarantine(link: &HostLink, tail: Tail) -> Result<EventDraft, HostFailure> {
    // A segment without anything sealed goes away whole: its name will be needed again.
    let nothing_sealed = tail.offset <= SegmentHeader::LEN as u64;
    let offset = if nothing_sealed { 0 } else { tail.offset };
    match link.call(Request::Quarantine { name: tail.segment, offset }).await? {
        Reply::Done => {}
        _ => return Err(HostFailure::Unexpected),
    }
    tracing::warn!(records = tail.records, bytes = tail.bytes, "an unsealed tail was set aside");
    let body = EventBody::Maintained { action: Maintenance::Quarantined, records: tail.records, bytes: tail.bytes };
    Ok(EventDraft::new(AuditEventType::LogMaintained, "unsealed records at the end of the log were set aside")
        .severity(transcode_confidential::audit::AuditSeverity::Warning)
        .body(body))
}

struct Fold<'a> {
    kms_key: &'a KeyArn,
    keys: KeyTable,
    keyring: Keyring,
    log_key_record: Option<WrappedRecord>,
    policy: Option<Vec<u8>>,
    unfinished: BTreeMap<Sequence, Unfinished>,
    error: Option<FoldError>,
}

impl<'a> Fold<'a> {
    fn new(kms_key: &'a KeyArn) -> Self {
        Self {
            kms_key,
            keys: KeyTable::new(),
            keyring: Keyring::default(),
            log_key_record: None,
            policy: None,
            unfinished: BTreeMap::new(),
            error: None,
        }
    }

    fn take(&mut self, SealedEvent { event, attachments }: SealedEvent) {
        if self.error.is_some() {
            return;
        }
        if let Err(error) = self.keys.apply(&event) {
            self.error = Some(error);
            return;
        }
        match &event.body {
            Some(EventBody::EpochOpened(_)) => {
                let record = attachments.get(1).and_then(|record| WrappedRecord::from_bytes(&record.payload).ok());
                self.log_key_record = record;
            }
            Some(EventBody::KeyCreated { .. }) => self.key_created(&event, &attachments),
            Some(EventBody::KeyChanged { .. }) => self.key_changed(&event),
            Some(EventBody::PolicyAdopted { .. }) => {
                self.policy = attachments.into_iter().next().map(|record| record.payload);
            }
            Some(EventBody::KeyUsed { operation: KeyOperation::Encrypt | KeyOperation::Decrypt, .. }) => {
                self.began(&event);
            }
            Some(EventBody::Processed { began: Some(began), .. }) => {
                self.unfinished.remove(began);
            }
            _ => {}
        }
    }

    fn key_created(&self, event: &AuditEvent, attachments: &[Record]) {
        let id = event.key_id.as_deref().and_then(|id| id.parse().ok());
        let record = attachments.first().and_then(|record| WrappedRecord::from_bytes(&record.payload).ok());
        // A record by another KMS key cannot be unwrapped; uses of it answer that.
        if let (Some(id), Some(version), Some(record)) = (id, event.key_version, record)
            && is_by(&record, self.kms_key)
        {
            self.keyring.insert_wrapped(id, version, record);
        }
    }

    fn key_changed(&self, event: &AuditEvent) {
        let Some(id) = event.key_id.as_deref().and_then(|id| id.parse().ok()) else { return };
        let Some(key) = self.keys.key(&id) else { return };
        if matches!(key.state, KeyState::Revoked | KeyState::Destroyed) {
            return self.keyring.revoke(&id);
        }
        for version in key.versions.iter().filter(|version| version.state == VersionState::Destroyed) {
            self.keyring.forget(&id, version.version);
        }
    }

    fn began(&mut self, event: &AuditEvent) {
        if self.unfinished.len() == UNFINISHED_LIMIT {
            self.unfinished.pop_first();
        }
        self.unfinished.insert(
            event.sequence,
            Unfinished {
                began: event.sequence,
                key_id: event.key_id.clone(),
                key_version: event.key_version,
                principal: event.principal.clone(),
                content_id: event.content_id.clone(),
            },
        );
    }
}
