//! Where a log begins: at its first event, or at a snapshot that stands for everything before it.

use super::{Checked, LogVerifier, SealedEvent, tampered};
use crate::{
    attestation::{Archived, PcrIndex, VerifiedDocument},
    audit::{
        AuditEvent, EventBody,
        segment::{Record, SegmentHeader},
        verify::{EpochSummary, Finding, Verdict, epoch::Opening},
    },
    fold::{OpenEpoch, Restoration, Snapshot},
    ids::{Epoch, LeafHash, Sequence},
    protocol::restore::SignedRestore,
};

/// How the log begins.
#[derive(Debug)]
pub(super) enum Start {
    /// With its first event, as far as is known.
    Whole,
    /// Later. A segment that begins with a snapshot is due; until then segments are passed over: they may be what is left of
    /// some that were being removed. The finding is for a log in which no such segment comes.
    Due(Finding),
    /// With the snapshot at this place, which was verified. Whether the events before it may be missing is known only at
    /// the end.
    At(Sequence, Finding),
}

/// What the snapshot says of the epochs, until its own seal has verified.
#[derive(Debug, Default)]
pub(super) struct Told {
    epochs: Vec<EpochSummary>,
    restorations: Vec<Restoration>,
}

impl LogVerifier {
    /// The first segment is not that of the first event.
    pub(super) fn enter_late(&mut self, header: &SegmentHeader) {
        let what = format!("the log begins only at event {}", header.first);
        self.start = Start::Due(Finding { segment: Some(header.name()), offset: 0, sequence: Sequence(0), what });
    }

    /// Whether a record of a segment that begins with something else is passed over.
    pub(super) fn is_passed_over(&mut self, record: &Record) -> bool {
        use crate::audit::segment::RecordKind;
        let Start::Due(_) = &self.start else { return false };
        let begins = self.attachments.is_empty() && self.is_settled();
        if !begins || record.kind == RecordKind::Snapshot {
            return false;
        }
        if let Some(segment) = &mut self.current {
            segment.passed_over = true;
        }
        true
    }

    /// Takes up the log at a snapshot: all that it says of the place is checked against the segment, and the epoch that vouches
    /// for it against its attestation document. Its seal is checked when it comes.
    pub(super) fn begin_at(&mut self, event: &AuditEvent, beside: &[Record]) -> Checked {
        let Start::Due(finding) = &self.start else { return Ok(()) };
        let finding = finding.clone();
        let Some(EventBody::Snapshot { .. }) = &event.body else {
            return Err(tampered("snapshot parts stand beside another event"));
        };
        let snapshot = decode(beside).map_err(|error| tampered(error.to_string()))?;
        let header = self.current.as_ref().and_then(|segment| segment.header);
        let same = header.is_some_and(|header| {
            snapshot.log_id == header.log_id
                && snapshot.chain.epoch() == header.epoch
                && snapshot.chain.size() == header.first.0
                && snapshot.chain.last() == header.previous
        });
        let epoch = snapshot.fold.epoch().filter(|_| same);
        let epoch = epoch.ok_or_else(|| tampered("the snapshot is of another place or log"))?;
        let place = Opening { epoch: epoch.epoch, first: epoch.first, previous: epoch.previous };
        let document = place.verify(&epoch.opened, &epoch.document, (&self.root, &self.image)).map_err(tampered)?;
        self.told.epochs = past_epochs(&snapshot, epoch);
        self.opening = Some((epoch.opened.log_key, summary(epoch, &document)));
        self.kept_from = snapshot.fold.kept_from();
        self.told.restorations = snapshot.fold.restorations().cloned().collect();
        self.recent.begin_at(snapshot.chain.size(), snapshot.chain.last());
        self.evidence.begin_at(snapshot.chain.size());
        self.start = Start::At(event.sequence, finding);
        self.chain = snapshot.chain;
        if self.evidence.reaches(self.chain.size()) {
            self.reached.push(self.chain.state());
        }
        Ok(())
    }

    /// A snapshot anywhere else must at least be of its own place.
    pub(super) fn check_snapshot(&self, event: &AuditEvent, beside: &[Record]) -> Checked {
        if !matches!(event.body, Some(EventBody::Snapshot { .. })) {
            return Ok(());
        }
        let head = beside.first().map(|record| Snapshot::place(&record.payload));
        match head {
            Some(Ok((log_id, chain))) if Some(log_id) == self.log_id && chain == self.chain => Ok(()),
            _ => Err(tampered("a snapshot of another place")),
        }
    }

    /// Takes over what a snapshot told, now that it is sealed; notes what else a sealed event says of the beginning.
    pub(super) fn settle_start(&mut self) {
        self.epoch_keys.extend(self.told.epochs.iter().map(|epoch| (epoch.epoch, epoch.epoch_key)));
        self.epochs.append(&mut self.told.epochs);
        for restored in std::mem::take(&mut self.told.restorations) {
            self.restored(restored.epoch, restored.size, restored.lost_epoch);
        }
        let mut restored = Vec::new();
        for SealedEvent { event, .. } in &self.pending {
            if let Some(EventBody::Pruned { below, .. }) = &event.body {
                self.kept_from = self.kept_from.max(*below);
            }
            if let Some(EventBody::Restored { size, lost_epoch, .. }) = &event.body {
                restored.push((event.epoch, *size, *lost_epoch));
            }
        }
        restored.into_iter().for_each(|(epoch, size, lost)| self.restored(epoch, size, lost));
    }

    /// An epoch that leaves numbers out must have been told to, in the batch that opens it.
    pub(super) fn check_numbers(&mut self) -> Checked {
        if !std::mem::take(&mut self.left_out) {
            return Ok(());
        }
        let told = self.pending.iter().any(|SealedEvent { event, .. }| {
            matches!(&event.body, Some(EventBody::Restored { lost_epoch, .. }) if lost_epoch.next() == Some(event.epoch))
        });
        if told { Ok(()) } else { Err(tampered("an epoch does not follow on the epoch before")) }
    }

    fn restored(&mut self, epoch: Epoch, size: u64, lost_epoch: Epoch) {
        self.evidence.lose(size, epoch, lost_epoch);
        self.restored_in.push(epoch);
    }

    /// An event that records a restore must be of the document beside it, and of the copy that its epoch began with.
    pub(super) fn check_restored(&self, event: &AuditEvent, beside: &[Record]) -> Checked {
        let Some(EventBody::Restored { size, root, lost_epoch, .. }) = &event.body else { return Ok(()) };
        let claimed = beside.first().and_then(|record| SignedRestore::claimed(&record.payload).ok());
        let same = claimed.is_some_and(|claimed| {
            Some(claimed.log_id) == self.log_id
                && (claimed.size, claimed.root, claimed.lost_epoch) == (*size, *root, *lost_epoch)
        });
        let opening = self.opening.as_ref().map(|(_, opening)| opening);
        let begins = opening.or(self.epochs.last()).is_some_and(|epoch| epoch.first.0 == *size);
        if same && begins { Ok(()) } else { Err(tampered("the record of a restore is not that of its document")) }
    }

    /// Whether the log may begin where it does: called at its end.
    pub(super) fn check_start(&self) -> Result<(), (Verdict, Finding)> {
        match &self.start {
            Start::Whole => Ok(()),
            Start::Due(finding) => Err((Verdict::Truncated, finding.clone())),
            Start::At(_, finding) if self.sealed.is_none() => Err((Verdict::Truncated, finding.clone())),
            Start::At(sequence, finding) if !self.resumes && self.kept_from < *sequence => {
                let what = format!("{}, and no record says that what was before it was given up", finding.what);
                Err((Verdict::Truncated, Finding { what, ..finding.clone() }))
            }
            Start::At(..) => Ok(()),
        }
    }

    /// The first event that was verified.
    pub(super) const fn begins(&self) -> Sequence {
        match &self.start {
            Start::At(sequence, _) => *sequence,
            _ => Sequence(0),
        }
    }
}

fn decode(beside: &[Record]) -> Result<Snapshot, crate::fold::SnapshotError> {
    let parts: Vec<&[u8]> = beside.iter().map(|record| record.payload.as_slice()).collect();
    Snapshot::decode(&parts)
}

fn summary(open: &OpenEpoch, document: &VerifiedDocument<Archived>) -> EpochSummary {
    let pcr0 = PcrIndex::new(0).and_then(|index| document.pcrs().get(index));
    EpochSummary {
        epoch: open.epoch,
        first: open.first,
        events: 0,
        opened_at: open.opened_at,
        enclave_id: document.module_id().to_owned(),
        image: EpochSummary::label(document.image()),
        pcr0: pcr0.map(ToString::to_string).unwrap_or_default(),
        document: document.digest(),
        epoch_key: open.opened.epoch_key,
        reattestations: 0,
        told: false,
        restored: false,
    }
}

fn past_epochs(snapshot: &Snapshot, open: &OpenEpoch) -> Vec<EpochSummary> {
    let ends = snapshot.fold.past_epochs().skip(1).map(|next| next.first).chain([open.first]);
    let told = snapshot.fold.past_epochs().zip(ends).map(|(past, end)| EpochSummary {
        epoch: past.epoch,
        first: past.first,
        events: end.0.saturating_sub(past.first.0),
        opened_at: past.opened_at,
        enclave_id: past.enclave_id.clone().unwrap_or_default(),
        image: None,
        pcr0: past.pcr0.as_ref().map(ToString::to_string).unwrap_or_default(),
        document: past.document,
        epoch_key: past.epoch_key,
        reattestations: 0,
        told: true,
        restored: false,
    });
    told.collect()
}

/// An epoch's place in the log, for what its statement and document say of it.
impl From<&AuditEvent> for Opening {
    fn from(event: &AuditEvent) -> Self {
        let (epoch, first, previous): (Epoch, Sequence, LeafHash) = (event.epoch, event.sequence, event.previous);
        Self { epoch, first, previous }
    }
}
