//! Snapshots: a fold over the rest of a log on top of a snapshot is the fold over all of it, whatever the log says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that fails should fail loudly"
)]

use proptest::prelude::*;
use transcode_confidential::{
    audit::{
        AuditEvent, AuditEventType, Chain, CreationReason, EpochOpened, EventBody, EventDraft, HoldChange, KeyChange,
        KeyOperation, Outcome, Reported, RequestTag,
        segment::{RECORD_LIMIT, Record, RecordKind},
    },
    fold::{Fold, Snapshot},
    ids::{Digest, KeyId, KeyVersion, LogId, Period, RootHash, Sequence},
    keys::{KeyRequest, KeyRotationPolicy},
    signature::{PublicKey, Signature},
    time::Timestamp,
};

const LOG: LogId = LogId::new([7; 16]);

/// One thing that happens; whatever is not possible at that time does not happen.
#[derive(Debug, Clone)]
enum Step {
    Boot,
    Generate(u8),
    Rotate(u8),
    Change(u8, KeyChange),
    DestroyVersion(u8, u8),
    DecryptFrom(u8, u8),
    Use(u8, KeyOperation),
    Media(u8, u8),
    End(u8),
    Report(u8),
    Policy(u8),
    Hold(u8, HoldChange),
    Snapshot,
    Prune(u8),
    Restore(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let change = prop_oneof![
        Just(KeyChange::Revoked),
        Just(KeyChange::Destroyed),
        Just(KeyChange::Suspended),
        Just(KeyChange::Resumed)
    ];
    let operation =
        prop_oneof![Just(KeyOperation::Encrypt), Just(KeyOperation::Decrypt), Just(KeyOperation::IssueDataKey)];
    let hold = prop_oneof![Just(HoldChange::Placed), Just(HoldChange::Lifted)];
    prop_oneof![
        1 => Just(Step::Boot),
        6 => (0..12_u8).prop_map(Step::Generate),
        6 => (0..12_u8).prop_map(Step::Rotate),
        4 => (0..12_u8, change).prop_map(|(key, change)| Step::Change(key, change)),
        2 => (0..12_u8, 1..4_u8).prop_map(|(key, version)| Step::DestroyVersion(key, version)),
        2 => (0..12_u8, 1..4_u8).prop_map(|(key, version)| Step::DecryptFrom(key, version)),
        10 => (0..12_u8, operation).prop_map(|(key, operation)| Step::Use(key, operation)),
        8 => (0..12_u8, any::<u8>()).prop_map(|(key, period)| Step::Media(key, period)),
        6 => any::<u8>().prop_map(Step::End),
        3 => any::<u8>().prop_map(Step::Report),
        1 => any::<u8>().prop_map(Step::Policy),
        2 => (0..3_u8, hold).prop_map(|(name, change)| Step::Hold(name, change)),
        2 => Just(Step::Snapshot),
        1 => any::<u8>().prop_map(Step::Prune),
        1 => any::<u8>().prop_map(Step::Restore),
    ]
}

/// A log under way.
struct Life {
    chain: Chain,
    fold: Fold,
    history: Vec<(AuditEvent, Vec<Record>)>,
}

impl Life {
    fn of(steps: &[Step]) -> Self {
        let mut life = Self { chain: Chain::new(), fold: Fold::new(), history: Vec::new() };
        life.happen(&Step::Boot);
        steps.iter().for_each(|step| life.happen(step));
        life
    }

    fn happen(&mut self, step: &Step) {
        let Some((draft, records)) = self.draft(step) else { return };
        let now = Timestamp(self.chain.time().0 + 17);
        let (event, _leaf) = self.chain.append(draft, now).unwrap();
        self.fold.apply(&event, &records).expect("what was decided upon this state");
        self.history.push((event, records));
    }

    fn draft(&mut self, step: &Step) -> Option<(EventDraft, Vec<Record>)> {
        let id = |key: &u8| format!("key-{key}").parse::<KeyId>().unwrap();
        let payload = |fill: u8| vec![fill; 40 + usize::from(fill) * 3];
        let now = Timestamp(self.chain.time().0 + 17);
        let maintained = |body| EventDraft::new(AuditEventType::LogMaintained, "maintained").body(body);
        let decide = |fold: &Fold, key: &u8, request: KeyRequest| fold.keys().decide(&id(key), &request, now).ok();
        let wrapped = |fill: u8| Record::new(RecordKind::WrappedKey, payload(fill));
        Some(match step {
            Step::Boot => {
                self.chain.open_epoch(self.chain.epoch().next()?);
                let fill = self.chain.epoch().0 as u8;
                let records = vec![Record::new(RecordKind::Attestation, payload(fill)), wrapped(fill)];
                let opened = EpochOpened {
                    log_id: LOG,
                    epoch_key: PublicKey::new([fill; 32]),
                    log_key: PublicKey::new([1; 32]),
                    document: Digest::of(&records[0].payload),
                    log_key_record: Digest::of(&records[1].payload),
                    statement: Signature::new([fill; 64]),
                };
                let body = EventBody::EpochOpened(opened.into());
                let mut draft = EventDraft::new(AuditEventType::EnclaveCreated, "opened").body(body);
                draft.enclave_id = Some("i-0".into());
                (draft, records)
            }
            Step::Generate(key) => {
                let record = wrapped(*key);
                let record_digest = Some(Digest::of(&record.payload));
                let policy = KeyRotationPolicy { max_uses: 4 + u64::from(*key), ..KeyRotationPolicy::default() };
                (decide(&self.fold, key, KeyRequest::Generate { policy, record: record_digest })?, vec![record])
            }
            Step::Rotate(key) => {
                let record = wrapped(*key + 100);
                let digest = Some(Digest::of(&record.payload));
                let request = KeyRequest::Rotate { expected: None, reason: CreationReason::Manual, record: digest };
                (decide(&self.fold, key, request)?, vec![record])
            }
            Step::Change(key, change) => (decide(&self.fold, key, KeyRequest::Change(*change))?, Vec::new()),
            Step::DestroyVersion(key, version) => {
                let request = KeyRequest::DestroyVersion(KeyVersion((*version).into()));
                (decide(&self.fold, key, request)?, Vec::new())
            }
            Step::DecryptFrom(key, version) => {
                let request = KeyRequest::DecryptFrom(KeyVersion((*version).into()));
                (decide(&self.fold, key, request)?, Vec::new())
            }
            Step::Use(key, operation) => {
                let request = KeyRequest::Use { operation: *operation, version: None, context: None };
                let draft = decide(&self.fold, key, request)?;
                let named = draft.principal("transcoder-1").content("reel");
                // Every other use comes with an idempotency key, and some of those repeat.
                let tag = RequestTag::new(&"transcoder-1".parse().unwrap(), &format!("k{key}"), ("POST", "/", b""));
                (named.request((key % 2 == 0).then_some(tag)), Vec::new())
            }
            Step::Media(key, period) => {
                let content = format!("reel-{}", period % 3).parse().unwrap();
                let request = KeyRequest::MediaKey { content, period: Period((period % 16).into()) };
                (decide(&self.fold, key, request)?, Vec::new())
            }
            Step::Report(number) => {
                let reported = Reported {
                    job: "job".into(),
                    number: (number % 3).into(),
                    complete: number % 2 == 0,
                    frames: 1,
                    bytes_in: 2,
                    bytes_out: 3,
                    input: None,
                    output: Some(Digest::new([*number; 32])),
                };
                let draft = EventDraft::new(AuditEventType::ContentProcessed, "reported").key("k1", None);
                (draft.principal("transcoder-1").content("reel").body(EventBody::Reported(reported)), Vec::new())
            }
            Step::End(which) => {
                let open: Vec<_> = self.fold.unfinished().map(|stream| stream.began).collect();
                let began = Some(*open.get(usize::from(*which) % open.len().max(1))?);
                let (outcome, digest) = (Outcome::Complete, None);
                let body = EventBody::Processed { began, outcome, bytes_in: 1, bytes_out: 1, digest };
                (EventDraft::new(AuditEventType::ContentProcessed, "ended").body(body), Vec::new())
            }
            Step::Policy(fill) => {
                let record = Record::new(RecordKind::Policy, payload(*fill));
                let body = EventBody::PolicyAdopted { version: 1, document: Digest::of(&record.payload) };
                (EventDraft::new(AuditEventType::PolicyChanged, "adopted").body(body), vec![record])
            }
            Step::Hold(name, change) => {
                let name = format!("case {name}");
                if self.fold.hold(&name).is_some() == (*change == HoldChange::Placed) {
                    return None;
                }
                (maintained(EventBody::Hold { name, change: *change }), Vec::new())
            }
            Step::Snapshot => {
                let parts = Snapshot::encode(LOG, &self.chain, &self.fold).unwrap();
                let digests = parts.iter().map(|part| Digest::of(part)).collect();
                let records = parts.into_iter().map(|part| Record::new(RecordKind::Snapshot, part)).collect();
                (maintained(EventBody::Snapshot { parts: digests }), records)
            }
            Step::Prune(which) => {
                let places: Vec<Sequence> = self.fold.snapshots().map(|place| place.sequence).collect();
                let below = *places.get(usize::from(*which) % places.len().max(1))?;
                if self.fold.is_held() || below <= self.fold.kept_from() {
                    return None;
                }
                (maintained(EventBody::Pruned { below, proven: 3 }), Vec::new())
            }
            Step::Restore(fill) => {
                let record = Record::new(RecordKind::Restoration, payload(*fill));
                let size = self.chain.size() / 2;
                let (root, lost_epoch) = (RootHash::new([*fill; 32]), self.chain.epoch());
                let body = EventBody::Restored { size, root, document: Digest::of(&record.payload), lost_epoch };
                (maintained(body), vec![record])
            }
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_rest_of_a_log_on_top_of_a_snapshot_comes_to_the_same_as_all_of_it(
        steps in prop::collection::vec(step(), 1..160), cut in any::<prop::sample::Index>()
    ) {
        let life = Life::of(&steps);
        // At least the epoch must have opened.
        let cut = 1 + cut.index(life.history.len());
        let (mut chain, mut fold) = (Chain::new(), Fold::new());
        for (event, records) in &life.history[..cut] {
            chain.follow(event).unwrap();
            fold.apply(event, records).unwrap();
        }
        let parts = Snapshot::encode(LOG, &chain, &fold).unwrap();
        let mut taken = Snapshot::decode(&parts).unwrap();
        prop_assert_eq!(&taken, &Snapshot { log_id: LOG, chain, fold });
        for (event, records) in &life.history[cut..] {
            taken.chain.follow(event).unwrap();
            taken.fold.apply(event, records).unwrap();
        }
        prop_assert_eq!(taken.chain, life.chain);
        prop_assert_eq!(taken.fold, life.fold);
    }

    #[test]
    fn whatever_decodes_is_the_one_encoding_of_what_it_says(
        steps in prop::collection::vec(step(), 1..60), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let life = Life::of(&steps);
        let mut parts = Snapshot::encode(LOG, &life.chain, &life.fold).unwrap();
        let total: usize = parts.iter().map(Vec::len).sum();
        let mut at = at.index(total);
        for part in &mut parts {
            if let Some(place) = part.get_mut(at) {
                *place = byte;
                break;
            }
            at -= part.len();
        }
        if let Ok(snapshot) = Snapshot::decode(&parts) {
            prop_assert_eq!(Snapshot::encode(snapshot.log_id, &snapshot.chain, &snapshot.fold).unwrap(), parts);
        }
    }
}

#[test]
fn a_part_that_is_doubled_or_out_of_its_place_is_refused() {
    let mut steps = vec![Step::Boot; 3];
    (0..12).for_each(|key| steps.push(Step::Generate(key)));
    // Enough to need several parts.
    for round in 0..700_u16 {
        steps.push(Step::Rotate((round % 12) as u8));
        steps.push(Step::Policy(9));
    }
    let mut life = Life::of(&steps);
    for key in 0..12 {
        for _ in 0..300 {
            life.happen(&Step::Rotate(key));
        }
    }
    let parts = Snapshot::encode(LOG, &life.chain, &life.fold).unwrap();
    assert!(parts.len() > 3, "{} parts", parts.len());
    assert!(parts.iter().all(|part| part.len() <= RECORD_LIMIT));
    assert!(Snapshot::decode(&parts).is_ok());
    for n in 0..parts.len() {
        let mut more = parts.clone();
        more.insert(n, parts[n].clone());
        assert!(Snapshot::decode(&more).is_err(), "part {n} twice");
        if n > 0 {
            let mut swapped = parts.clone();
            swapped.swap(n - 1, n);
            assert!(Snapshot::decode(&swapped).is_err(), "part {n} before {}", n - 1);
        }
    }
}

/// What the critical section stands still for. Run in release: `cargo test --release -p transcode-confidential --test fold
/// -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn how_long_a_snapshot_of_many_keys_takes() {
    for keys in [1_000_u32, 10_000, 100_000] {
        let mut life = Life::of(&[]);
        for key in 0..keys {
            let (id, record) = (format!("title-{key}/rendition").replace('/', "-"), vec![7; 300]);
            let body = EventBody::KeyCreated {
                record: Some(Digest::of(&record)),
                max_age_secs: 86_400,
                max_uses: 1 << 20,
                require_attestation: false,
                reason: CreationReason::Initial,
            };
            let draft = EventDraft::new(AuditEventType::KeyGenerated, "").key(&id, Some(KeyVersion(1))).body(body);
            let (event, _) = life.chain.append(draft, Timestamp(5)).unwrap();
            life.fold.apply(&event, &[Record::new(RecordKind::WrappedKey, record)]).unwrap();
        }
        let start = std::time::Instant::now();
        let parts = Snapshot::encode(LOG, &life.chain, &life.fold).unwrap();
        let encoded = start.elapsed();
        let digests: Vec<Digest> = parts.iter().map(|part| Digest::of(part)).collect();
        let hashed = start.elapsed();
        let bytes: usize = parts.iter().map(Vec::len).sum();
        let decode = std::time::Instant::now();
        Snapshot::decode(&parts).unwrap();
        println!(
            "{keys} keys: {bytes} bytes in {} parts, encoded in {encoded:?}, with digests {hashed:?}, decoded in {:?}",
            digests.len(),
            decode.elapsed()
        );
    }
}
