//! What an adversarial parent can do to a stored log, and what an enclave says to each that reads it back at boot. Expected ends
//! come from tables over regions and rules, never from the verifier. A boot holds no evidence: what only evidence could show
//! (an older copy, a dropped tail) it accepts, and clients catch.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that fails should fail loudly"
)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use enclave_app::{
    Fatal,
    boot::{BootError, read_back},
    host::HostLink,
};
use testkit::{
    log_maker::{LogMaker, Segment, used},
    nsm::{MockHypervisor, MockImage},
    parent::ScriptedParent,
    segments::{self, Segments, frames, mend},
    world::{Plan, World},
};
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    audit::{
        AuditEventType, CreationReason, EventBody, EventDraft,
        segment::{Footer, RECORD_HEAD, Record, RecordKind},
        verify::Verdict,
    },
    ids::{Digest, KeyVersion},
    protocol::host::Credentials,
    time::SystemClock,
};

/// How reading back ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The enclave goes on behind so many events.
    GoesOn(u64),
    /// It stops with this verdict.
    Stops(Verdict),
}

const DAMAGED: End = End::Stops(Verdict::Damaged);
const TAMPERED: End = End::Stops(Verdict::Tampered);
const TRUNCATED: End = End::Stops(Verdict::Truncated);

/// A parent with whatever log, and an enclave's side of the connection.
struct Boots {
    hypervisor: MockHypervisor,
    image: MockImage,
    log: LogMaker,
    parent: ScriptedParent,
    _dir: tempfile::TempDir,
}

impl Boots {
    async fn new() -> Self {
        let hypervisor = MockHypervisor::new(Arc::new(SystemClock));
        let image = MockImage::named("enclave");
        let log = sample(&hypervisor, &image, 1);
        let dir = tempfile::tempdir().unwrap();
        let nobody = Credentials::new("none", "none", "none", 60);
        let parent = ScriptedParent::start(dir.path(), nobody, "127.0.0.1:1".parse().unwrap()).await;
        Self { hypervisor, image, log, parent, _dir: dir }
    }

    fn files(&self) -> &[Segment] {
        self.log.segments()
    }

    /// Boots on these segments, as far as the log goes.
    async fn end(&self, files: &[Segment]) -> End {
        let files: Segments = files.iter().cloned().collect();
        self.parent.edit(|segments| *segments = files);
        let session = [7; 16];
        let (patience, never) = (Duration::from_secs(60), CancellationToken::new());
        let (link, _) = HostLink::open(self.parent.host(), session, patience, &never).await.unwrap();
        let accepted = self.image.measurements("enclave").into();
        match read_back(&link, &self.hypervisor.trust_root(), &accepted).await {
            Ok(state) => End::GoesOn(state.map_or(0, |(_, state)| state.size)),
            Err(BootError::Log(report)) => End::Stops(report.verdict),
            Err(other) => panic!("{other}"),
        }
    }

    /// As [`Boots::end`] with one file in place of another.
    async fn end_with(&self, file: usize, bytes: Vec<u8>) -> End {
        let mut files = self.files().to_vec();
        files[file].1 = bytes;
        self.end(&files).await
    }
}

/// Two epochs with a few batches. The keys are made before they are used, for a boot folds what it reads.
fn sample(hypervisor: &MockHypervisor, image: &MockImage, seed: u8) -> LogMaker {
    let made = |id: &str| {
        let body = EventBody::KeyCreated {
            record: None,
            max_age_secs: 3600,
            max_uses: 1000,
            require_attestation: false,
            reason: CreationReason::Initial,
        };
        EventDraft::new(AuditEventType::KeyGenerated, "made").key(id, Some(KeyVersion(1))).body(body)
    };
    let mut log = LogMaker::new(hypervisor, seed);
    log.open_epoch(image);
    log.batch(vec![made("film-1"), made("film-2")]);
    log.batch(vec![used("film-1", 1), used("film-2", 1)]);
    log.reattest();
    log.open_epoch(image);
    log.batch(vec![used("film-1", 1)]);
    log
}

const fn is(kind: u8, wanted: RecordKind) -> bool {
    kind == wanted as u8
}

/// Documents are compared by their digest first, and everything has a check sum, so of what lies beside events every
/// sixteenth byte is as good as all.
fn worth_a_case(frames: &[(usize, usize, u8)], at: usize) -> bool {
    let beside = |kind| is(kind, RecordKind::Attestation) || is(kind, RecordKind::WrappedKey);
    let inside = frames.iter().find(|(start, end, _)| (start + RECORD_HEAD..*end).contains(&at));
    inside.is_none_or(|(start, _, kind)| !beside(*kind) || (at - start).is_multiple_of(16))
}

#[tokio::test]
async fn every_byte_flipped_in_turn_stops_a_boot_as_damage() {
    let boots = Boots::new().await;
    let mut cases = 0;
    for file in 0..boots.files().len() {
        let good = boots.files()[file].1.clone();
        let frames = frames(&good);
        for at in (0..good.len()).filter(|at| worth_a_case(&frames, *at)) {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            assert_eq!(boots.end_with(file, bytes).await, DAMAGED, "file {file}, byte {at}");
            cases += 1;
        }
    }
    println!("at boot: {cases} flipped bytes: all damaged");
    assert!(cases > 3000, "{cases}");
}

#[tokio::test]
async fn every_byte_flipped_with_its_check_sums_mended_stops_a_boot_as_tampering() {
    let boots = Boots::new().await;
    let mut cases = 0;
    for file in 0..boots.files().len() {
        let good = boots.files()[file].1.clone();
        let frames = frames(&good);
        let payloads = frames.iter().flat_map(|(start, end, _)| start + RECORD_HEAD..*end);
        for at in (16..80).chain(payloads.filter(|at| at % 3 == 0 && worth_a_case(&frames, *at))) {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            mend(&mut bytes, &frames);
            assert_eq!(boots.end_with(file, bytes).await, TAMPERED, "file {file}, byte {at}");
            cases += 1;
        }
    }
    println!("at boot: {cases} flipped bytes with mended check sums: all tampered");
}

#[tokio::test]
async fn every_frame_deleted_duplicated_or_swapped_ends_a_boot_as_the_table_says() {
    let boots = Boots::new().await;
    let size = boots.log.chain().size();
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for file in 0..boots.files().len() {
        let last_file = file + 1 == boots.files().len();
        let original = boots.files()[file].1.clone();
        let frames = frames(&original);
        for (n, &(start, end, kind)) in frames.iter().enumerate() {
            let last = n + 1 == frames.len();
            let deleted = match () {
                () if is(kind, RecordKind::Footer) => DAMAGED,
                // The last batch has no seal now: nobody was told of it, as far as an enclave can see.
                () if is(kind, RecordKind::Seal) && last && last_file => End::GoesOn(size - 1),
                // The next seal covers the events of the deleted one. A footer, where there is one, was over other bytes.
                () if is(kind, RecordKind::Seal) && last_file => End::GoesOn(size),
                () => TAMPERED,
            };
            let mut cases = vec![
                ("deleted", [&original[..start], &original[end..]].concat(), deleted),
                ("duplicated", [&original[..end], &original[start..]].concat(), TAMPERED),
            ];
            if let Some(&(_, after, _)) = frames.get(n + 1) {
                let swapped = [&original[..start], &original[end..after], &original[start..end], &original[after..]];
                cases.push(("swapped", swapped.concat(), TAMPERED));
            }
            for (what, bytes, expected) in cases {
                assert_eq!(boots.end_with(file, bytes).await, expected, "{what} {n} of file {file}");
                *ends.entry(format!("{what} {expected:?}")).or_default() += 1;
            }
        }
    }
    println!("at boot: {} frames deleted, duplicated or swapped: {ends:?}", ends.values().sum::<u64>());
}

#[tokio::test]
async fn a_boot_goes_on_behind_the_last_seal_of_every_prefix_and_sets_the_rest_aside() {
    let boots = Boots::new().await;
    let files = boots.files().to_vec();
    let mut cases = 0;
    for file in 0..files.len() {
        let all = frames(&files[file].1);
        let near = |at: usize| all.iter().any(|(start, end, _)| at.abs_diff(*start) <= 2 || at.abs_diff(*end) <= 2);
        for cut in (0..files[file].1.len()).filter(|cut| cut % 23 == 0 || *cut < 100 || near(*cut)) {
            let mut segments = files[..=file].to_vec();
            segments[file].1.truncate(cut);
            // What the seals before the cut say, read at their place: size is 8 bytes behind log id and epoch.
            let seals = segments.iter().flat_map(|(_, bytes)| {
                let whole = all_frames(bytes);
                whole.into_iter().filter(|(.., kind)| is(*kind, RecordKind::Seal)).map(|(start, ..)| {
                    let at = start + RECORD_HEAD + 24;
                    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
                })
            });
            let expected = End::GoesOn(seals.max().unwrap_or(0));
            assert_eq!(boots.end(&segments).await, expected, "file {file} cut at {cut}");
            let left = boots.parent.segments();
            let sealed: Vec<Segment> = left.into_iter().collect();
            assert_eq!(boots.end(&sealed).await, expected, "what is left is a log");
            cases += 1;
        }
    }
    println!("at boot: {cases} prefixes: each goes on behind its last seal");
}

/// As [`frames`], up to the first record that is not whole.
fn all_frames(bytes: &[u8]) -> Vec<(usize, usize, u8)> {
    let records = segments::records(bytes).into_iter();
    records.map(|(start, record)| (start, start + record.disk_len(), record.kind as u8)).collect()
}

#[tokio::test]
async fn whole_files_missing_foreign_older_or_repeated_end_a_boot_as_the_table_says() {
    let boots = Boots::new().await;
    let files = boots.files();
    let size = boots.log.chain().size();
    let foreign = sample(&boots.hypervisor, &boots.image, 7);
    let mut longer = boots.log.clone();
    longer.roll();
    longer.batch(vec![used("film-1", 1)]);
    let mut misnamed = files.to_vec();
    misnamed[1].0.epoch.0 += 1;
    let mut other_image = boots.log.clone();
    other_image.open_epoch(&MockImage::named("stranger"));
    let impostor = sample(&MockHypervisor::new(Arc::new(SystemClock)), &boots.image, 1);
    // Two enclaves from one head: each history is whole, and no mixture of them is.
    let (mut one, mut two) = (boots.log.clone(), boots.log.clone());
    one.open_epoch(&boots.image);
    one.batch(vec![used("film-1", 1)]);
    two.open_epoch(&boots.image);
    two.batch(vec![used("film-2", 1), used("film-2", 1)]);
    one.roll();
    one.batch(vec![used("film-1", 1)]);
    two.roll();
    two.batch(vec![used("film-2", 1)]);
    let mixed = [&one.segments()[..3], &two.segments()[3..]].concat();
    // The footer of a file is made anew over other content: it proves nothing, and nothing is taken from it.
    let mut footer = files.to_vec();
    let all = frames(&footer[0].1);
    let entry = all.iter().find(|(.., kind)| is(*kind, RecordKind::Entry)).unwrap();
    footer[0].1[entry.0 + RECORD_HEAD + 60] ^= 1;
    let start = all.last().unwrap().0;
    mend(&mut footer[0].1, &all);
    let old = Footer::from_bytes(&footer[0].1[start + RECORD_HEAD..]).unwrap();
    footer[0].1.truncate(start);
    let content = Digest::of(&footer[0].1);
    Record::new(RecordKind::Footer, Footer { content, ..old }.to_bytes()).write_to(&mut footer[0].1);
    let cases: Vec<(&str, Vec<Segment>, End)> = vec![
        ("all of it", files.to_vec(), End::GoesOn(size)),
        ("nothing", Vec::new(), End::GoesOn(0)),
        ("an older set: only evidence could tell", files[..1].to_vec(), AS_IT_WAS),
        ("the first file missing", files[1..].to_vec(), TRUNCATED),
        ("a file missing in the middle", vec![longer.segments()[0].clone(), longer.segments()[2].clone()], TAMPERED),
        ("a log that went on", longer.segments().to_vec(), End::GoesOn(size + 1)),
        ("a foreign file behind", vec![files[0].clone(), foreign.segments()[1].clone()], TAMPERED),
        ("a foreign file before", vec![foreign.segments()[0].clone(), files[1].clone()], TAMPERED),
        ("a file under another name", misnamed, TAMPERED),
        ("an epoch by another image under the real root", other_image.segments().to_vec(), TAMPERED),
        ("a log under another root", impostor.segments().to_vec(), TAMPERED),
        ("one history from a head", one.segments().to_vec(), End::GoesOn(one.chain().size())),
        ("the other history from it", two.segments().to_vec(), End::GoesOn(two.chain().size())),
        ("a mixture of both", mixed, TAMPERED),
        ("a footer made anew over changed content", footer, TAMPERED),
    ];
    let count = cases.len();
    for (what, files, expected) in cases {
        assert_eq!(boots.end(&files).await, expected, "{what}");
    }
    println!("at boot: {count} sets of files: all as expected");
}

/// The first file alone is the whole log as it was when that file was closed.
const AS_IT_WAS: End = End::GoesOn(6);

#[tokio::test]
async fn a_whole_boot_ends_as_reading_back_does_region_by_region() {
    let mut world = World::with(Plan::scripted()).await;
    let image = world.image().clone();
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    operator.encrypt("content-key-1", b"frame").await.unwrap();
    world.restart_enclave().await;
    operator.encrypt("content-key-1", b"frame").await.unwrap();
    world.stop_enclave().await.unwrap();
    let good = world.segments();
    let mut cases = 0;
    for (name, bytes) in &good {
        // The header, and of every kind of record its head, the start and the end of its payload: flipped, and mended.
        let all = frames(bytes);
        let mut kinds = std::collections::BTreeSet::new();
        let records = all.iter().filter(|(.., kind)| kinds.insert(*kind));
        let records = records.flat_map(|(start, end, _)| [*start, start + RECORD_HEAD, end - 1]);
        for at in [0, 20, 50, 95].into_iter().chain(records) {
            for mended in [false, true] {
                let payload = all.iter().any(|(start, end, _)| (start + RECORD_HEAD..*end).contains(&at));
                if mended && !payload {
                    continue;
                }
                let mut bad = good.clone();
                segments::flip(&mut bad, *name, at);
                if mended {
                    mend(bad.get_mut(name).unwrap(), &all);
                }
                world.edit_segments(|segments| *segments = bad);
                let fatal = world.launch(&image).await.expect_err("no epoch opens on this");
                let Fatal::Boot(BootError::Log(report)) = fatal else { panic!("{fatal}") };
                let expected = if mended { Verdict::Tampered } else { Verdict::Damaged };
                assert_eq!(report.verdict, expected, "{name}, byte {at}, mended: {mended}");
                assert_eq!(report.first_bad.unwrap().segment.unwrap().epoch, name.epoch);
                cases += 1;
            }
        }
    }
    world.edit_segments(|segments| *segments = good);
    world.launch(&image).await.expect("the log as it was");
    world.check().intact();
    println!("{cases} whole boots: all stopped as expected, and the last one went on");
}

#[tokio::test]
async fn a_whole_foreign_log_stops_a_boot_at_its_key() {
    let mut one = World::with(Plan::scripted()).await;
    let two = World::with(Plan::scripted()).await;
    let image = one.image().clone();
    one.stop_enclave().await.unwrap();
    let foreign = two.segments();
    one.edit_segments(|segments| *segments = foreign);
    // Its epochs are attested under another root.
    let fatal = one.launch(&image).await.expect_err("another log");
    assert!(matches!(&fatal, Fatal::Boot(BootError::Log(report)) if report.verdict == Verdict::Tampered), "{fatal}");
}
