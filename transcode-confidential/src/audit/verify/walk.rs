mod epochs;
mod prepared;
mod records;
mod segment;
mod start;

use std::collections::BTreeMap;

use self::{
    prepared::Ahead,
    segment::Segment,
    start::{Start, Told},
};
use super::{
    EpochSummary, Evidence, Finding, Note, Report, Verdict,
    epoch::RecentSeals,
    evidence::{Contradiction, EvidenceBook, Keys},
};
use crate::{
    attestation::{ImagePolicy, TrustRoot},
    audit::{
        AuditEvent, Chain, LogState,
        segment::{Record, SegmentName},
    },
    fold::SNAPSHOT_LIMIT,
    ids::{Epoch, LogId, Sequence},
    signature::PublicKey,
};

/// Most events of one batch: bounds what is held before its seal is seen.
const BATCH_LIMIT: usize = 65_536;
/// Most bytes of one batch.
const BATCH_BYTES: usize = SNAPSHOT_LIMIT + 32 * 1024 * 1024;

/// An event under a verified seal, with the records that its body names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedEvent {
    /// The event.
    pub event: AuditEvent,
    /// The records beside it, in the order in which the body names them.
    pub attachments: Vec<Record>,
}

/// Walks a stored log from its first segment to its last.
///
/// Call [`LogVerifier::segment`] for each file in the order of their names and [`LogVerifier::push`] for its bytes, then
/// [`LogVerifier::finish`]. After the first thing that is wrong, everything else is ignored.
pub struct LogVerifier {
    root: TrustRoot,
    image: ImagePolicy,
    evidence: EvidenceBook,
    log_id: Option<LogId>,
    log_key: Option<PublicKey>,
    epoch_keys: BTreeMap<Epoch, PublicKey>,
    epochs: Vec<EpochSummary>,
    /// An epoch that was opened and not sealed yet, with its log key.
    opening: Option<(PublicKey, EpochSummary)>,
    chain: Chain,
    sealed: Option<LogState>,
    sealed_chain: Chain,
    recent: RecentSeals,
    pending: Vec<SealedEvent>,
    /// Pending events besides those, which nobody asked for.
    unseen: usize,
    /// The state after those pending events that there is evidence about.
    reached: Vec<LogState>,
    pending_bytes: usize,
    attachments: Vec<Record>,
    current: Option<Segment>,
    start: Start,
    told: Told,
    /// Events before this one were given up.
    kept_from: Sequence,
    /// The epochs that took up a copy.
    restored_in: Vec<Epoch>,
    /// Whether the epoch that is opening leaves numbers out.
    left_out: bool,
    /// Whether it is fine to begin with any snapshot.
    resumes: bool,
    /// What is known of the record that is being checked.
    ahead: Ahead,
    failure: Option<(Verdict, Finding)>,
}

type Checked = Result<(), (Verdict, String)>;

fn damaged(what: impl Into<String>) -> (Verdict, String) {
    (Verdict::Damaged, what.into())
}

fn tampered(what: impl Into<String>) -> (Verdict, String) {
    (Verdict::Tampered, what.into())
}

impl From<Contradiction> for (Verdict, String) {
    fn from(contradiction: Contradiction) -> Self {
        (contradiction.verdict, contradiction.what)
    }
}

impl LogVerifier {
    /// Starts before the first segment. Epochs must be attested under `root`, by an image that `image` accepts.
    pub fn new(root: TrustRoot, image: ImagePolicy) -> Self {
        Self {
            root,
            image,
            evidence: EvidenceBook::default(),
            log_id: None,
            log_key: None,
            epoch_keys: BTreeMap::new(),
            epochs: Vec::new(),
            opening: None,
            chain: Chain::new(),
            sealed: None,
            sealed_chain: Chain::new(),
            recent: RecentSeals::default(),
            pending: Vec::new(),
            unseen: 0,
            reached: Vec::new(),
            pending_bytes: 0,
            attachments: Vec::new(),
            current: None,
            start: Start::Whole,
            told: Told::default(),
            kept_from: Sequence(0),
            restored_in: Vec::new(),
            left_out: false,
            resumes: false,
            ahead: Ahead::default(),
            failure: None,
        }
    }

    /// As [`LogVerifier::new`], for whoever goes on with a log and begins with any of its snapshots on purpose: it is no fault
    /// then that what lies before is missing without a record that it was pruned.
    pub fn resuming(root: TrustRoot, image: ImagePolicy) -> Self {
        Self { resumes: true, ..Self::new(root, image) }
    }

    /// Holds the log against something that was kept elsewhere. Call before the first segment.
    pub fn expect(&mut self, evidence: Evidence) {
        self.evidence.add(evidence);
    }

    /// Starts the next segment; the one before is not the last, so it must be closed.
    pub fn segment(&mut self, name: SegmentName) {
        if self.failure.is_none()
            && let Err(failure) = self.close_inner_segment()
        {
            self.fail(failure);
        }
        if self.failure.is_none() {
            self.current = Some(Segment::new(name));
        }
    }

    /// Takes the bytes that come next in the current segment; gives each event to `sink` once its seal has verified.
    pub fn push(&mut self, bytes: &[u8], sink: &mut dyn FnMut(SealedEvent)) {
        if self.failure.is_some() {
            return;
        }
        if let Err(failure) = self.take(bytes, sink) {
            self.fail(failure);
        }
    }

    /// The rest of the current segment cannot be had: its file is damaged in a way that leaves no bytes to push.
    pub fn unreadable(&mut self, what: impl Into<String>) {
        if self.failure.is_none() && self.current.as_ref().is_some_and(|segment| !segment.passed_over) {
            self.fail(damaged(what));
        }
    }

    /// The chain's head at the last seal: where an enclave that accepts the log goes on.
    pub const fn sealed_chain(&self) -> &Chain {
        &self.sealed_chain
    }

    /// Whether something wrong was found already; the rest of the log will be ignored.
    pub const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The last segment was pushed: says what the log is.
    pub fn finish(mut self) -> Report {
        let mut notes = Vec::new();
        let mut tail = None;
        if self.failure.is_none() {
            match self.close_last_segment() {
                Ok(unsealed) => tail = unsealed,
                Err(failure) => self.fail(failure),
            }
        }
        if self.failure.is_none() {
            self.failure = self.check_start().err();
        }
        if self.failure.is_none() {
            let size = self.sealed.map_or(0, |state| state.size);
            let log_id = self.log_id.unwrap_or(LogId::new([0; 16]));
            let keys = Keys { log_id, log_key: self.log_key, epochs: &self.epoch_keys };
            let unseen = self.evidence.check_unseen(&keys);
            match unseen.and_then(|unseen| self.evidence.check_end(size, &keys, &mut notes).map(|()| unseen)) {
                Ok(false) => {}
                Ok(true) => notes.push(Note::EvidenceOfPruned),
                Err(contradiction) => self.fail(contradiction.into()),
            }
        }
        if !self.restored_in.is_empty() {
            notes.push(Note::Restored);
        }
        if self.evidence.has_lost() {
            notes.push(Note::EvidenceOfLost);
        }
        for epoch in &mut self.epochs {
            epoch.restored = self.restored_in.contains(&epoch.epoch);
        }
        if self.begins() > Sequence(0) {
            notes.push(Note::Pruned);
        }
        if tail.is_some() {
            notes.push(Note::UnsealedTail);
        }
        if self.evidence.is_empty() {
            notes.push(Note::Unanchored);
        }
        if self.epochs.iter().any(|epoch| epoch.image.is_none() && !epoch.told) {
            notes.push(Note::ImageUnchecked);
        }
        let begins = self.begins();
        let (verdict, first_bad) = match self.failure {
            Some((verdict, finding)) => (verdict, Some(finding)),
            None => (Verdict::Intact, None),
        };
        Report {
            begins,
            kept_from: self.kept_from,
            verdict,
            log_id: self.log_id,
            log_key: self.log_key,
            events: self.sealed.map_or(0, |state| state.size),
            epochs: self.epochs,
            head: self.sealed,
            first_bad,
            notes,
            tail,
        }
    }

    /// Whether every event so far is sealed.
    const fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.unseen == 0
    }

    fn fail(&mut self, (verdict, what): (Verdict, String)) {
        let place = self.current.as_ref();
        self.failure = Some((
            verdict,
            Finding {
                segment: place.map(|segment| segment.name),
                offset: place.map_or(0, Segment::place),
                sequence: Sequence(self.chain.size()),
                what,
            },
        ));
    }
}
