//! Logs as an enclave would write them, made without running one: real documents of a mock hypervisor, real keys, real
//! segments. For tests that then do to them what an enclave never would.

use std::{ops::Range, sync::Arc};

use enclave_app::nsm::{AttestationRequest, Nsm};
use transcode_confidential::{
    attestation::{ImagePolicy, PcrIndex, Purpose, UserData},
    audit::{
        AuditEventType, Chain, EpochOpened, EpochStatement, EventBody, EventDraft, KeyOperation, Receipt, Seal,
        checkpoint::Checkpoint,
        cose_receipt::CoseReceipt,
        segment::{Footer, Record, RecordKind, SegmentHeader, SegmentName, WholeRecords},
        tree::inclusion_proof,
        verify::{Evidence, LogVerifier, Prepared, Report},
    },
    ids::{Digest, Epoch, KeyVersion, LeafHash, LogId, Sequence},
    secret::KeyMaterial,
    signature::{Signature, SigningKey},
    time::{Clock, SystemClock, Timestamp},
};

use crate::nsm::{MockHypervisor, MockImage, MockNsm};

/// A segment file.
pub type Segment = (SegmentName, Vec<u8>);

/// Writes one log.
#[derive(Clone)]
pub struct LogMaker {
    hypervisor: MockHypervisor,
    log_id: LogId,
    log_key: Arc<SigningKey>,
    chain: Chain,
    epoch: Option<(Arc<SigningKey>, Arc<MockNsm>)>,
    segments: Vec<Segment>,
    /// Which enclave it is: two from one head have other keys.
    launched: u8,
    /// Events per seal so far, for tests that need to know where seals are.
    pub receipts: Vec<Receipt>,
    now: Timestamp,
}

impl LogMaker {
    /// A log without epochs. The same seed gives the same log id and log key.
    pub fn new(hypervisor: &MockHypervisor, seed: u8) -> Self {
        Self {
            hypervisor: hypervisor.clone(),
            log_id: LogId::new([seed; 16]),
            log_key: Arc::new(key(seed)),
            chain: Chain::new(),
            epoch: None,
            segments: Vec::new(),
            launched: 0,
            receipts: Vec::new(),
            now: SystemClock.now(),
        }
    }

    /// A small log as most tests want it: two epochs, a few batches, keys made and used.
    pub fn sample(hypervisor: &MockHypervisor, image: &MockImage, seed: u8) -> Self {
        let mut maker = Self::new(hypervisor, seed);
        maker.open_epoch(image);
        maker.batch(vec![used("film-1", 1), used("film-2", 1)]);
        maker.reattest();
        maker.open_epoch(image);
        maker.batch(vec![used("film-1", 2)]);
        maker
    }

    /// The log's name.
    pub const fn log_id(&self) -> LogId {
        self.log_id
    }

    /// The head.
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// From here on another enclave writes: its epoch keys are its own.
    pub const fn launch_another(&mut self, number: u8) {
        self.launched = number;
    }

    /// Opens an epoch with an enclave of that image, closing the segment before.
    pub fn open_epoch(&mut self, image: &MockImage) {
        self.close_segment();
        let epoch = Epoch(self.chain.epoch().0 + 1);
        let (first, previous) = (Sequence(self.chain.size()), self.chain.last());
        let number = 200_u8.wrapping_add(u8::try_from(epoch.0).unwrap()).wrapping_add(self.launched.wrapping_mul(17));
        let epoch_key = Arc::new(key(number));
        let nsm = self.hypervisor.launch(image);
        let measured = [
            (16, self.log_id.as_bytes().to_vec()),
            (17, EpochStatement::measured_bytes(epoch, previous, &epoch_key.public_key())),
        ];
        for (index, content) in measured {
            let index = PcrIndex::new(index).unwrap();
            nsm.extend_pcr(index, &content).unwrap();
            nsm.lock_pcr(index).unwrap();
        }
        let user_data = UserData::Epoch { log_id: self.log_id, epoch, first, previous }.encode();
        let public_key = Some(epoch_key.public_key().to_spki());
        let request = AttestationRequest { public_key, user_data: Some(user_data), nonce: None };
        let document = nsm.attest(request).unwrap();
        let log_key_record = b"a wrapped log key".to_vec();
        let mut opened = EpochOpened {
            log_id: self.log_id,
            epoch_key: epoch_key.public_key(),
            log_key: self.log_key.public_key(),
            document: Digest::of(&document),
            log_key_record: Digest::of(&log_key_record),
            statement: Signature::new([0; 64]),
        };
        opened.statement = EpochStatement::of(&opened, epoch, first, previous).sign(&self.log_key);
        self.epoch = Some((epoch_key, nsm));
        self.chain.open_epoch(epoch);
        let header = SegmentHeader { log_id: self.log_id, epoch, first, previous };
        self.segments.push((header.name(), header.to_bytes()));
        let draft = EventDraft::new(AuditEventType::EnclaveCreated, "epoch opened")
            .body(EventBody::EpochOpened(Box::new(opened)));
        let records =
            vec![Record::new(RecordKind::Attestation, document), Record::new(RecordKind::WrappedKey, log_key_record)];
        self.seal(vec![(draft, records)]);
    }

    /// From here on seals are signed by the key of an earlier epoch of the first enclave.
    pub fn sign_as_epoch(&mut self, epoch: u8) {
        self.epoch.as_mut().unwrap().0 = Arc::new(key(200 + epoch));
    }

    /// Writes and seals a batch.
    pub fn batch(&mut self, drafts: Vec<EventDraft>) {
        self.seal(drafts.into_iter().map(|draft| (draft, Vec::new())).collect());
    }

    /// Attests the head again.
    pub fn reattest(&mut self) {
        let state = self.chain.state();
        let data = UserData::Head { log_id: self.log_id, epoch: state.epoch, size: state.size, last: state.last };
        let request = AttestationRequest { user_data: Some(data.encode()), ..AttestationRequest::default() };
        let document = self.epoch.as_ref().unwrap().1.attest(request).unwrap();
        let body =
            EventBody::Attestation { purpose: Purpose::Head, document: Some(Digest::of(&document)), reason: None };
        let draft = EventDraft::new(AuditEventType::AttestationVerified, "again").body(body);
        self.seal(vec![(draft, vec![Record::new(RecordKind::Attestation, document)])]);
    }

    /// Writes entries that are never sealed.
    pub fn unsealed(&mut self, drafts: Vec<EventDraft>) {
        let mut chain = self.chain.clone();
        for draft in drafts {
            let (_event, leaf) = chain.append(draft, self.now).unwrap();
            Record::new(RecordKind::Entry, leaf).write_to(&mut self.segments.last_mut().unwrap().1);
        }
    }

    /// Writes a checkpoint of the head.
    pub fn checkpoint(&mut self) {
        let text = self.note();
        Record::new(RecordKind::Checkpoint, text).write_to(&mut self.segments.last_mut().unwrap().1);
    }

    /// A checkpoint of the head, as a signed note.
    pub fn note(&self) -> String {
        let epoch_key = &self.epoch.as_ref().unwrap().0;
        Checkpoint::of(self.log_id, &self.chain.state()).sign(&self.log_key, self.chain.epoch(), epoch_key).to_string()
    }

    /// A COSE receipt of an event in the tree of all events.
    pub fn cose_receipt(&self, event: u64) -> CoseReceipt {
        let (leaves, state) = (self.leaves(), self.chain.state());
        let path = inclusion_proof(&leaves[..], event, state.size).unwrap();
        CoseReceipt::sign(&self.log_key, self.log_id, (state.size, state.root), Sequence(event), path)
    }

    /// The leaf hashes of all sealed events.
    pub fn leaves(&self) -> Vec<LeafHash> {
        self.receipts.iter().map(|receipt| receipt.leaf).collect()
    }

    /// Closes the segment with a footer.
    pub fn close_segment(&mut self) {
        let Some((name, bytes)) = self.segments.last_mut() else { return };
        let footer =
            Footer { first: name.first, size: self.chain.size(), last: self.chain.last(), content: Digest::of(bytes) };
        Record::new(RecordKind::Footer, footer.to_bytes()).write_to(bytes);
    }

    /// Closes the segment and goes on with the same epoch in the next.
    pub fn roll(&mut self) {
        self.close_segment();
        self.begin_segment();
    }

    /// Begins a segment in the same epoch; the one before must be closed.
    pub fn begin_segment(&mut self) {
        let header = SegmentHeader {
            log_id: self.log_id,
            epoch: self.chain.epoch(),
            first: Sequence(self.chain.size()),
            previous: self.chain.last(),
        };
        self.segments.push((header.name(), header.to_bytes()));
    }

    /// The files, which the maker forgets: for logs that are larger than memory. Close the last of them before.
    pub fn take_segments(&mut self) -> Vec<Segment> {
        std::mem::take(&mut self.segments)
    }

    /// The files.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    fn seal(&mut self, events: Vec<(EventDraft, Vec<Record>)>) {
        let mut batch = self.chain.begin_batch();
        let mut records = Vec::new();
        for (draft, beside) in events {
            self.now = Timestamp(self.now.0 + 1);
            self.chain.append_to(&mut batch, draft, self.now).unwrap();
            records.extend(beside);
            records.push(Record::new(RecordKind::Entry, batch.leaves().last().unwrap()));
        }
        let seal = Seal::sign(&self.epoch.as_ref().unwrap().0, self.log_id, self.chain.state());
        records.push(Record::new(RecordKind::Seal, seal.to_bytes()));
        let bytes = &mut self.segments.last_mut().unwrap().1;
        records.iter().for_each(|record| record.write_to(bytes));
        let tree = batch.tree();
        for (sequence, leaf) in (batch.first.0..).zip(&batch.hashes) {
            let path = tree.path(sequence).unwrap();
            self.receipts.push(Receipt { seal, sequence: Sequence(sequence), leaf: *leaf, path });
        }
    }
}

/// A key of a seed.
pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&KeyMaterial::from_bytes([seed; 32])).unwrap()
}

/// A use of a key, on the record.
pub fn used(id: &str, version: u32) -> EventDraft {
    EventDraft::new(AuditEventType::KeyUsed, "message encrypted")
        .key(id, Some(KeyVersion(version)))
        .principal("transcoder-1")
        .body(EventBody::KeyUsed { operation: KeyOperation::Encrypt, uses: 1, context: None, period: None })
}

/// Verifies files in the order of their names, as an auditor does: by their bytes, and by records prepared ahead, with and
/// without somebody who wants the events.
///
/// # Panics
/// Where these come to different reports.
pub fn verify(
    hypervisor: &MockHypervisor,
    image: impl Into<ImagePolicy>,
    segments: &[Segment],
    evidence: &[Evidence],
) -> Report {
    let image = image.into();
    let verified = |push: fn(&mut LogVerifier, &[u8])| {
        let mut verifier = LogVerifier::new(hypervisor.trust_root(), image.clone());
        evidence.iter().cloned().for_each(|evidence| verifier.expect(evidence));
        let mut sorted: Vec<_> = segments.iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        for (name, bytes) in sorted {
            verifier.segment(*name);
            push(&mut verifier, bytes);
        }
        verifier.finish()
    };
    let report = verified(|verifier, bytes| bytes.chunks(1000).for_each(|chunk| verifier.push(chunk, &mut |_| {})));
    let seen = verified(|verifier, bytes| {
        prepared(verifier, bytes, Prepared::events, |verifier, prepared| verifier.push_prepared(prepared, &mut |_| {}));
    });
    assert_eq!(seen, report, "prepared records come to another report");
    let unseen = verified(|verifier, bytes| prepared(verifier, bytes, Prepared::unseen, LogVerifier::push_unseen));
    assert_eq!(unseen, report, "prepared runs come to another report");
    report
}

/// Hands in a segment by whole records, as long as there are any.
fn prepared(
    verifier: &mut LogVerifier,
    bytes: &[u8],
    prepare: fn(Arc<Vec<u8>>, Range<usize>) -> Prepared,
    push: fn(&mut LogVerifier, Prepared),
) {
    let shared = Arc::new(bytes.to_vec());
    let mut at = bytes.len().min(SegmentHeader::LEN);
    verifier.push(&bytes[..at], &mut |_| {});
    let mut key = None;
    loop {
        let WholeRecords { length, footer, .. } = WholeRecords::of(&bytes[at..]);
        let prepared = prepare(Arc::clone(&shared), at..at + length);
        let (prepared, last) = prepared.with_seals(key.or_else(|| verifier.epoch_key()));
        key = last;
        push(
            verifier,
            match footer {
                Some(footer) => prepared.after_content(Digest::of(&bytes[..at + footer])),
                None => prepared,
            },
        );
        at += length;
        if footer.is_none() {
            return verifier.push(&bytes[at..], &mut |_| {});
        }
    }
}
