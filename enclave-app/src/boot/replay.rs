//! Reading back the log through the same verifier that auditors use, folded into the state to go on with. It begins with the
//! newest snapshot that the parent knows of: what that says of everything before it counts only under the seal of an epoch
//! whose attestation document verifies, like everything after it. Without one it begins with the first event.

use transcode_confidential::{
    attestation::{ImagePolicy, TrustRoot},
    audit::{
        AuditEventType, Chain, EventBody, EventDraft, LogState, Maintenance,
        segment::{SegmentHeader, SegmentName},
        verify::{LogVerifier, SealedEvent, Tail, Verdict},
    },
    fold::{Fold, Snapshot},
    ids::{Epoch, LogId, Sequence},
    keys::FoldError,
    protocol::host::{HostError, READ_LIMIT, Reply, Request, SEGMENTS_LIMIT, SegmentInfo},
    signature::PublicKey,
};

use super::BootError;
use crate::{
    host::{HostFailure, HostLink},
    keyring::{Keyring, WrappedRecord, is_by},
    kms::KeyArn,
};

/// Log, log key, and state at the last seal.
pub(super) type State = (LogId, PublicKey, LogState);

/// What a verified log comes to.
pub(super) struct Replayed {
    /// `None` for an empty store.
    pub(super) state: Option<State>,
    pub(super) chain: Chain,
    pub(super) fold: Fold,
    /// The event that tells of an unsealed tail, where there was one.
    pub(super) quarantined: Option<EventDraft>,
}

/// Reads and verifies the parent's log. An unsealed tail is set aside there and never looked at again.
pub(super) async fn replay(link: &HostLink, root: &TrustRoot, image: &ImagePolicy) -> Result<Replayed, BootError> {
    let mut verifier = LogVerifier::resuming(root.clone(), image.clone());
    let mut replay = Replay::default();
    let start = start(link).await?;
    let mut after = start.map(just_before);
    loop {
        let segments = segments(link, after).await?;
        let mut names = after.iter().copied().chain(segments.iter().map(|segment| segment.name));
        let begins = replay.bytes > 0 || start.is_none() || segments.first().map(|segment| segment.name) == start;
        if !begins || !names.by_ref().is_sorted_by(|earlier, later| earlier < later) {
            return Err(HostFailure::Unexpected.into());
        }
        for segment in &segments {
            verifier.segment(segment.name);
            read(link, segment, &mut verifier, &mut replay).await?;
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
    if let Some(error) = replay.error {
        return Err(error.into());
    }
    tracing::info!(begins = report.begins.0, events = report.events, bytes = replay.bytes, "the log is verified");
    let quarantined = match report.tail {
        Some(tail) => Some(quarantine(link, tail).await?),
        None => None,
    };
    let state = match (report.log_id, report.log_key, report.head) {
        (Some(log_id), Some(log_key), Some(head)) => Some((log_id, log_key, head)),
        _ => None,
    };
    Ok(Replayed { state, chain, fold: replay.fold, quarantined })
}

/// The segment that begins with the newest snapshot, as the parent says. One that does not say means none.
async fn start(link: &HostLink) -> Result<Option<SegmentName>, HostFailure> {
    match link.call(Request::Snapshot).await {
        Ok(Reply::Start(start)) => Ok(start),
        Err(HostFailure::Refused(HostError::Refused)) => Ok(None),
        Ok(_) => Err(HostFailure::Unexpected),
        Err(error) => Err(error),
    }
}

/// A name that no segment has between it and the given one.
const fn just_before(name: SegmentName) -> SegmentName {
    match (name.epoch.0.checked_sub(1), name.first.0.checked_sub(1)) {
        (Some(epoch), _) => SegmentName { first: name.first, epoch: Epoch(epoch) },
        (None, Some(first)) => SegmentName { first: Sequence(first), epoch: Epoch(u64::MAX) },
        (None, None) => name,
    }
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
    replay: &mut Replay,
) -> Result<(), HostFailure> {
    let mut offset = 0;
    while offset < segment.length && !verifier.has_failed() {
        let request = Request::Read { name: segment.name, offset, length: READ_LIMIT };
        let Reply::Bytes(bytes) = link.call(request).await? else { return Err(HostFailure::Unexpected) };
        if bytes.is_empty() {
            break;
        }
        offset += bytes.len() as u64;
        replay.bytes += bytes.len() as u64;
        verifier.push(&bytes, &mut |sealed| replay.take(&sealed));
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

/// A replay under way.
#[derive(Default)]
struct Replay {
    fold: Fold,
    begun: bool,
    /// What the parent sent.
    bytes: u64,
    error: Option<FoldError>,
}

impl Replay {
    fn take(&mut self, SealedEvent { event, attachments }: &SealedEvent) {
        if self.error.is_some() {
            return;
        }
        if !self.begun && event.sequence > Sequence(0) {
            // The verifier begins nowhere else but at a snapshot that it has decoded.
            let parts: Vec<&[u8]> = attachments.iter().map(|record| record.payload.as_slice()).collect();
            match Snapshot::decode(&parts) {
                Ok(snapshot) => self.fold = snapshot.fold,
                Err(_) => {
                    self.error =
                        Some(FoldError { sequence: event.sequence, reason: "it is not the snapshot that is due" });
                    return;
                }
            }
        }
        self.begun = true;
        self.error = self.fold.apply(event, attachments).err();
    }
}

/// The keys of a log that can still be used, each to be unwrapped when it is needed.
pub(super) fn keyring(fold: &Fold, kms_key: &KeyArn) -> Keyring {
    let keyring = Keyring::default();
    for (id, version, record) in fold.wrapped() {
        // A record by another KMS key cannot be unwrapped; uses of it answer that.
        if let Ok(record) = WrappedRecord::from_bytes(record)
            && is_by(&record, kms_key)
        {
            keyring.insert_wrapped(id.clone(), version, record);
        }
    }
    keyring
}
