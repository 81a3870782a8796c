use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::{
    EpochSummary, Evidence, Finding, Note, Report, Tail, Verdict,
    epoch::{RecentSeals, verify_head, verify_opening},
    evidence::{Contradiction, EvidenceBook, Keys},
    tail::TornTail,
};
use crate::{
    attestation::{ImagePolicy, PcrIndex, Purpose, TrustRoot},
    audit::{
        AuditEvent, AuditEventType, Chain, EventBody, LogState, Seal,
        checkpoint::{Checkpoint, SignedNote, VerifierKey, epoch_key_name, log_verifier_key},
        decode_leaf,
        segment::{Footer, Record, RecordBuffer, RecordKind, SegmentHeader, SegmentName},
    },
    ids::{Digest, Epoch, LogId, Sequence},
    signature::PublicKey,
};

/// Most events of one batch: bounds what is held before its seal is seen.
const BATCH_LIMIT: usize = 65_536;
/// Most bytes of one batch.
const BATCH_BYTES: usize = 64 * 1024 * 1024;

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
    /// The state after those pending events that there is evidence about.
    reached: Vec<LogState>,
    pending_bytes: usize,
    attachments: Vec<Record>,
    current: Option<Segment>,
    failure: Option<(Verdict, Finding)>,
}

/// The segment that is being read.
struct Segment {
    name: SegmentName,
    head: Vec<u8>,
    header: Option<SegmentHeader>,
    records: RecordBuffer,
    content: Sha256,
    /// Offset behind the last seal, checkpoint or footer: what lies before it is settled.
    settled: u64,
    unsettled_records: u64,
    /// Offset of the record that is being checked.
    checking: Option<u64>,
    footer: bool,
    torn: Option<(TornTail, String)>,
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
            reached: Vec::new(),
            pending_bytes: 0,
            attachments: Vec::new(),
            current: None,
            failure: None,
        }
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
            let size = self.sealed.map_or(0, |state| state.size);
            let log_id = self.log_id.unwrap_or(LogId::new([0; 16]));
            let keys = Keys { log_id, log_key: self.log_key, epochs: &self.epoch_keys };
            if let Err(contradiction) = self.evidence.check_end(size, &keys, &mut notes) {
                self.fail(contradiction.into());
            }
        }
        if tail.is_some() {
            notes.push(Note::UnsealedTail);
        }
        if self.evidence.is_empty() {
            notes.push(Note::Unanchored);
        }
        if self.epochs.iter().any(|epoch| epoch.image.is_none()) {
            notes.push(Note::ImageUnchecked);
        }
        let (verdict, first_bad) = match self.failure {
            Some((verdict, finding)) => (verdict, Some(finding)),
            None => (Verdict::Intact, None),
        };
        Report {
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

    fn take(&mut self, bytes: &[u8], sink: &mut dyn FnMut(SealedEvent)) -> Checked {
        let Some(segment) = &mut self.current else { return Ok(()) };
        if segment.torn.is_some() {
            segment.push(bytes);
            return Ok(());
        }
        let rest = segment.take_head(bytes);
        if segment.header.is_none() {
            let Ok(head) = <&[u8; SegmentHeader::LEN]>::try_from(segment.head.as_slice()) else { return Ok(()) };
            let header = match SegmentHeader::from_bytes(head) {
                Ok(header) => header,
                Err(error) => {
                    let mut tail = TornTail::new(0, &segment.head);
                    tail.push(rest);
                    segment.torn = Some((tail, error.to_string()));
                    segment.head.clear();
                    return Ok(());
                }
            };
            segment.header = Some(header);
            self.enter(&header)?;
        }
        if let Some(segment) = &mut self.current {
            segment.push(rest);
        }
        while let Some(record) = self.next_record()? {
            self.record(record, sink)?;
            if let Some(segment) = &mut self.current {
                segment.checking = None;
            }
        }
        Ok(())
    }

    /// The next record of the current segment; `None` where more bytes are needed or the rest of the file is unreadable.
    fn next_record(&mut self) -> Result<Option<Record>, (Verdict, String)> {
        let Some(segment) = &mut self.current else { return Ok(None) };
        if segment.torn.is_some() {
            return Ok(None);
        }
        let offset = segment.records.offset();
        match segment.records.next_record() {
            Ok(record) => {
                segment.checking = record.is_some().then_some(offset);
                Ok(record)
            }
            Err(error) => {
                let tail = TornTail::new(error.offset, segment.records.rest());
                segment.torn = Some((tail, error.to_string()));
                Ok(None)
            }
        }
    }

    /// Checks a segment's header against what came before it.
    fn enter(&mut self, header: &SegmentHeader) -> Checked {
        let name = self.current.as_ref().map(|segment| segment.name);
        if name != Some(header.name()) {
            return Err(tampered("the file's name is not that of its segment"));
        }
        match self.log_id {
            None => {
                self.evidence.check_log(header.log_id)?;
                self.log_id = Some(header.log_id);
                if header.first != Sequence(0) {
                    return Err((Verdict::Truncated, format!("the log begins only at event {}", header.first)));
                }
            }
            Some(log_id) if log_id != header.log_id => {
                return Err(tampered(format!("a segment of log {} in log {log_id}", header.log_id)));
            }
            Some(_) => {}
        }
        if header.first.0 > self.chain.size() {
            return Err(tampered(format!("events {} to {} are missing", self.chain.size(), header.first.0 - 1)));
        }
        if header.first.0 < self.chain.size() {
            return Err(tampered(format!("event {} appears a second time", header.first)));
        }
        if header.previous != self.chain.last() {
            return Err(tampered("the segment does not follow on the one before"));
        }
        if header.epoch < self.chain.epoch() {
            return Err(tampered("the segment goes back to an earlier epoch"));
        }
        Ok(())
    }

    fn record(&mut self, record: Record, sink: &mut dyn FnMut(SealedEvent)) -> Checked {
        if self.current.as_ref().is_some_and(|segment| segment.footer) {
            return Err(tampered("a record behind the footer"));
        }
        match record.kind {
            RecordKind::Entry => self.entry(&record)?,
            RecordKind::Seal => self.seal(&record, sink)?,
            RecordKind::Checkpoint => self.checkpoint(&record)?,
            RecordKind::Footer => self.footer(&record)?,
            kind if kind.is_attachment() => self.attachments.push(record.clone()),
            _ => return Err(tampered("a record that does not belong here")),
        }
        self.pending_bytes += record.disk_len();
        if self.pending.len() > BATCH_LIMIT || self.pending_bytes > BATCH_BYTES {
            return Err(tampered("more records than a batch may have, without a seal"));
        }
        if let Some(segment) = &mut self.current {
            segment.account(&record);
        }
        if self.pending.is_empty() && self.attachments.is_empty() {
            self.pending_bytes = 0;
        }
        Ok(())
    }

    fn entry(&mut self, record: &Record) -> Checked {
        let event = decode_leaf(&record.payload).map_err(|error| tampered(error.to_string()))?;
        let opens = event.epoch != self.chain.epoch();
        self.chain.follow(&event).map_err(|error| tampered(error.to_string()))?;
        let attachments = std::mem::take(&mut self.attachments);
        let named = event.body.as_ref().map(EventBody::attachments).unwrap_or_default();
        let found: Vec<_> = attachments.iter().map(|record| (record.kind, Digest::of(&record.payload))).collect();
        if named != found {
            return Err(tampered("the records beside the event are not those that it names"));
        }
        if self.current.as_ref().and_then(|segment| segment.header).is_none_or(|header| header.epoch != event.epoch) {
            return Err(tampered("an event of another epoch than its segment"));
        }
        self.check_epoch(&event, opens, &attachments)?;
        if self.evidence.reaches(self.chain.size()) {
            self.reached.push(self.chain.state());
        }
        self.pending.push(SealedEvent { event, attachments });
        Ok(())
    }

    fn check_epoch(&mut self, event: &AuditEvent, opens: bool, attachments: &[Record]) -> Checked {
        match (&event.body, opens) {
            (Some(EventBody::EpochOpened(opened)), true) if event.event_type == AuditEventType::EnclaveCreated => {
                if self.opening.is_some() {
                    return Err(tampered("two epochs in one batch"));
                }
                let follows = self.epochs.last().map_or(Epoch(0), |last| last.epoch).next();
                if follows != Some(event.epoch) {
                    return Err(tampered(format!("epoch {} does not follow on the epoch before", event.epoch)));
                }
                if Some(opened.log_id) != self.log_id || self.log_key.is_some_and(|key| key != opened.log_key) {
                    return Err(tampered("the epoch is of another log"));
                }
                let document =
                    verify_opening(event, opened, attachments, (&self.root, &self.image)).map_err(tampered)?;
                let pcr0 = PcrIndex::new(0).and_then(|index| document.pcrs().get(index));
                self.opening = Some((
                    opened.log_key,
                    EpochSummary {
                        epoch: event.epoch,
                        first: event.sequence,
                        events: 0,
                        opened_at: event.time,
                        enclave_id: document.module_id().to_owned(),
                        image: EpochSummary::label(document.image()),
                        pcr0: pcr0.map(ToString::to_string).unwrap_or_default(),
                        document: document.digest(),
                        epoch_key: opened.epoch_key,
                        reattestations: 0,
                    },
                ));
                Ok(())
            }
            (Some(EventBody::EpochOpened(_)), _) | (_, true) => {
                Err(tampered("an epoch must open with its own EnclaveCreated event, and only then"))
            }
            (Some(EventBody::Attestation { purpose: Purpose::Head, document: Some(_), .. }), false) => {
                let log_id = self.log_id.unwrap_or(LogId::new([0; 16]));
                let sealed = |size, last| self.recent.contains(size, last);
                verify_head(event, log_id, attachments, sealed, (&self.root, &self.image)).map_err(tampered)?;
                self.epochs.iter_mut().rev().take(1).for_each(|epoch| epoch.reattestations += 1);
                Ok(())
            }
            (_, false) => Ok(()),
        }
    }

    fn seal(&mut self, record: &Record, sink: &mut dyn FnMut(SealedEvent)) -> Checked {
        let seal = Seal::from_bytes(&record.payload).ok_or_else(|| tampered("a seal of the wrong length"))?;
        if self.pending.is_empty() || !self.attachments.is_empty() {
            return Err(tampered("a seal that seals nothing new"));
        }
        if Some(seal.log_id) != self.log_id || seal.state != self.chain.state() {
            return Err(tampered("a seal over another state of the log"));
        }
        let opening = self.opening.as_ref().map(|(_, opening)| (opening.epoch, opening.epoch_key));
        let key = match opening {
            Some((epoch, key)) if epoch == seal.state.epoch => Some(key),
            _ => self.epoch_keys.get(&seal.state.epoch).copied(),
        };
        let key = key.ok_or_else(|| tampered("a seal of an unknown epoch"))?;
        seal.verify(&key).map_err(|_| tampered("a seal that the epoch's key did not sign"))?;
        // What only an unsealed event says is not known of the log.
        if let Some((log_key, opening)) = self.opening.take() {
            self.log_key = Some(log_key);
            self.epoch_keys.insert(opening.epoch, opening.epoch_key);
            self.epochs.push(opening);
        }
        // Only what is sealed can contradict evidence; anything else is tampering, or not there at all.
        let log_id = seal.log_id;
        let keys = Keys { log_id, log_key: self.log_key, epochs: &self.epoch_keys };
        for sealed in &self.pending {
            self.evidence.check_event(&sealed.event)?;
        }
        for state in self.reached.drain(..) {
            self.evidence.check_state(&state, &keys)?;
        }
        if let Some(epoch) = self.epochs.last_mut() {
            epoch.events = seal.state.size - epoch.first.0;
        }
        self.recent.push(&seal.state);
        self.sealed = Some(seal.state);
        self.sealed_chain.clone_from(&self.chain);
        self.pending.drain(..).for_each(sink);
        Ok(())
    }

    fn checkpoint(&self, record: &Record) -> Checked {
        let (Some(log_id), Some(state)) = (self.log_id, self.sealed.filter(|_| self.pending.is_empty())) else {
            return Err(tampered("a checkpoint of what is not sealed"));
        };
        let note = std::str::from_utf8(&record.payload).ok().and_then(|text| text.parse::<SignedNote>().ok());
        let note = note.ok_or_else(|| tampered("a checkpoint that is no signed note"))?;
        if Checkpoint::from_text(note.text()) != Ok(Checkpoint::of(log_id, &state)) {
            return Err(tampered("a checkpoint of another state of the log"));
        }
        let epoch_key =
            self.epoch_keys.get(&state.epoch).ok_or_else(|| tampered("a checkpoint of an unknown epoch"))?;
        let log_key = self.log_key.ok_or_else(|| tampered("a checkpoint before the log has a key"))?;
        let epoch_key = VerifierKey { name: epoch_key_name(log_id, state.epoch), key: *epoch_key };
        if note.signatures().len() != 2 {
            return Err(tampered("a checkpoint with other signatures than the log's two"));
        }
        for key in [log_verifier_key(log_id, log_key), epoch_key] {
            note.verify(&key).map_err(|error| tampered(error.to_string()))?;
        }
        Ok(())
    }

    fn footer(&mut self, record: &Record) -> Checked {
        let footer = Footer::from_bytes(&record.payload).ok_or_else(|| tampered("a footer of the wrong length"))?;
        let Some(segment) = &mut self.current else { return Ok(()) };
        let expected = Footer {
            first: segment.header.map_or(Sequence(0), |header| header.first),
            size: self.chain.size(),
            last: self.chain.last(),
            content: Digest::new(segment.content.clone().finalize().into()),
        };
        if !self.pending.is_empty() || !self.attachments.is_empty() {
            return Err(tampered("a footer behind events without a seal"));
        }
        if footer != expected {
            return Err(tampered("the footer is that of other content"));
        }
        segment.footer = true;
        Ok(())
    }

    /// A segment that is followed by another must be whole and closed.
    fn close_inner_segment(&mut self) -> Checked {
        let Some(segment) = self.current.take() else { return Ok(()) };
        let result = match &segment.torn {
            Some((_, what)) => Err(damaged(what.clone())),
            None if segment.header.is_none() => Err(damaged("the file ends inside its header")),
            None if !segment.records.rest().is_empty() => Err(damaged("the file ends inside a record")),
            None if !self.pending.is_empty() || !self.attachments.is_empty() => {
                Err(tampered("events without a seal in the middle of the log"))
            }
            None if !segment.footer => Err(damaged("a closed segment without a footer")),
            None => Ok(()),
        };
        if result.is_err() {
            self.current = Some(segment);
        }
        result
    }

    /// The last segment may end in an interrupted write.
    fn close_last_segment(&mut self) -> Result<Option<Tail>, (Verdict, String)> {
        let Some(segment) = &self.current else { return Ok(None) };
        if let Some((tail, what)) = &segment.torn
            && !tail.is_torn()
        {
            return Err(damaged(what.clone()));
        }
        let unread = segment.torn.as_ref().map_or(segment.records.rest().len() as u64, |(tail, _)| tail.len());
        let (read, settled) = match segment.header {
            Some(_) => (segment.records.offset(), segment.settled),
            None => (segment.head.len() as u64, 0),
        };
        let bytes = read + unread - settled;
        let tail = Tail { segment: segment.name, offset: settled, records: segment.unsettled_records, bytes };
        Ok((tail.bytes > 0).then_some(tail))
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

impl Segment {
    fn new(name: SegmentName) -> Self {
        Self {
            name,
            head: Vec::new(),
            header: None,
            records: RecordBuffer::at(SegmentHeader::LEN as u64),
            content: Sha256::new(),
            settled: SegmentHeader::LEN as u64,
            unsettled_records: 0,
            checking: None,
            footer: false,
            torn: None,
        }
    }

    /// Fills up the header; gives what is left of `bytes`.
    fn take_head<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if self.header.is_some() {
            return bytes;
        }
        let room = (SegmentHeader::LEN - self.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(room);
        self.head.extend_from_slice(head);
        if self.head.len() == SegmentHeader::LEN {
            self.content.update(&self.head);
        }
        rest
    }

    fn push(&mut self, bytes: &[u8]) {
        match &mut self.torn {
            Some((tail, _)) => tail.push(bytes),
            None => self.records.push(bytes),
        }
    }

    fn account(&mut self, record: &Record) {
        let mut disk = Vec::with_capacity(record.disk_len());
        record.write_to(&mut disk);
        self.content.update(&disk);
        self.unsettled_records += 1;
        if matches!(record.kind, RecordKind::Seal | RecordKind::Checkpoint | RecordKind::Footer) {
            self.settled = self.records.offset();
            self.unsettled_records = 0;
        }
    }

    /// Where reading stopped: at the record that is wrong, or at the first byte that is missing or cannot be read.
    fn place(&self) -> u64 {
        if self.header.is_some() { self.checking.unwrap_or(self.records.offset()) } else { 0 }
    }
}
