//! What an adversarial parent can do to a stored log, and what the verifier says to each. Expected verdicts come from tables
//! over regions and rules, never from the verifier.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that fails should fail loudly"
)]

use std::sync::Arc;

use testkit::{
    log_maker::{LogMaker, Segment, used, verify},
    nsm::{MockHypervisor, MockImage},
    segments::{frames, mend},
};
use transcode_confidential::{
    attestation::{ImagePolicy, Measurements},
    audit::{
        segment::{RECORD_HEAD, RecordKind, SegmentHeader},
        verify::{Evidence, LogVerifier, Note, Prepared, Report, Verdict},
    },
    time::SystemClock,
};

struct Setting {
    hypervisor: MockHypervisor,
    image: MockImage,
    log: LogMaker,
}

impl Setting {
    fn new() -> Self {
        let hypervisor = MockHypervisor::new(Arc::new(SystemClock));
        let image = MockImage::named("enclave");
        let log = LogMaker::sample(&hypervisor, &image, 1);
        Self { hypervisor, image, log }
    }

    fn verify(&self, segments: &[Segment], evidence: &[Evidence]) -> Report {
        verify(&self.hypervisor, self.image.measurements("enclave"), segments, evidence)
    }

    /// A checkpoint of the whole log: with it, a shorter log is never intact.
    fn head(&self) -> Vec<Evidence> {
        vec![Evidence::checkpoint(&self.log.note()).unwrap()]
    }
}

#[test]
fn a_log_of_two_epochs_is_intact_and_says_who_wrote_what() {
    let setting = Setting::new();
    let report = setting.verify(setting.log.segments(), &setting.head());
    assert_eq!((report.verdict, report.first_bad, report.tail), (Verdict::Intact, None, None));
    assert_eq!(report.notes, []);
    assert_eq!((report.events, report.log_id), (6, Some(setting.log.log_id())));
    assert_eq!(report.epochs.iter().map(|epoch| (epoch.first.0, epoch.events)).collect::<Vec<_>>(), [(0, 4), (4, 2)]);
    assert_eq!(report.epochs.iter().map(|epoch| epoch.reattestations).collect::<Vec<_>>(), [1, 0]);
    assert!(report.epochs.iter().all(|epoch| epoch.image.as_deref() == Some("enclave")));
    let unanchored = setting.verify(setting.log.segments(), &[]);
    assert_eq!((unanchored.verdict, unanchored.notes), (Verdict::Intact, vec![Note::Unanchored]));
    let any = verify(&setting.hypervisor, ImagePolicy::danger_any_image(), setting.log.segments(), &setting.head());
    assert_eq!((any.verdict, any.notes), (Verdict::Intact, vec![Note::ImageUnchecked]));
}

#[test]
fn every_byte_flipped_in_turn_is_damage() {
    let setting = Setting::new();
    let evidence = setting.head();
    let mut cases = 0;
    for file in 0..setting.log.segments().len() {
        for at in 0..setting.log.segments()[file].1.len() {
            let mut segments = setting.log.segments().to_vec();
            segments[file].1[at] ^= 1 << (at % 8);
            let report = setting.verify(&segments, &evidence);
            assert_eq!(report.verdict, Verdict::Damaged, "file {file}, byte {at}: {:?}", report.first_bad);
            cases += 1;
        }
    }
    println!("{cases} flipped bytes: all damaged");
}

#[test]
fn every_byte_flipped_with_its_check_sums_mended_is_tampering() {
    let setting = Setting::new();
    let evidence = setting.head();
    let mut cases = 0;
    for file in 0..setting.log.segments().len() {
        let frames = frames(&setting.log.segments()[file].1);
        let payloads = frames.iter().flat_map(|(start, end, _)| start + RECORD_HEAD..*end);
        // Documents are compared by their digest first, so every seventh byte of them is as good as all.
        let places = (16..80).chain(payloads.enumerate().filter(|(n, _)| n % 7 == 0).map(|(_, at)| at));
        for at in places {
            let mut segments = setting.log.segments().to_vec();
            segments[file].1[at] ^= 1 << (at % 8);
            mend(&mut segments[file].1, &frames);
            let report = setting.verify(&segments, &evidence);
            // The header of the very first segment is all that says which log it is; evidence of another one contradicts it.
            let expected = if file == 0 && (16..32).contains(&at) { Verdict::Forked } else { Verdict::Tampered };
            assert_eq!(report.verdict, expected, "file {file}, byte {at}: {:?}", report.first_bad);
            cases += 1;
        }
    }
    println!("{cases} flipped bytes with mended check sums: all found");
}

#[test]
fn a_seal_counts_only_under_the_key_of_its_own_epoch_whatever_was_tried_ahead() {
    let Setting { hypervisor, image, .. } = Setting::new();
    let mut log = LogMaker::new(&hypervisor, 2);
    log.open_epoch(&image);
    log.open_epoch(&image);
    log.sign_as_epoch(1);
    log.batch(vec![used("film-1", 1)]);
    let measurements = image.measurements("enclave");
    assert_eq!(verify(&hypervisor, measurements.clone(), log.segments(), &[]).verdict, Verdict::Tampered);

    // Handed in so that the seal was verified ahead, under the key that did sign it.
    let mut verifier = LogVerifier::new(hypervisor.trust_root(), measurements.into());
    let [(first, opened), (second, bytes)] = log.segments() else { panic!("two epochs") };
    verifier.segment(*first);
    verifier.push(opened, &mut |_| {});
    let key = verifier.epoch_key();
    let (last, _, _) = frames(bytes)[frames(bytes).len() - 2];
    verifier.segment(*second);
    verifier.push(&bytes[..last], &mut |_| {});
    assert!(!verifier.has_failed() && verifier.epoch_key() != key);
    let (prepared, tried) = Prepared::unseen(Arc::new(bytes.clone()), last..bytes.len()).with_seals(key);
    assert_eq!(tried, key);
    verifier.push_unseen(prepared);
    assert_eq!(verifier.finish().verdict, Verdict::Tampered);
}

#[test]
fn a_record_of_another_kind_in_the_place_of_one_that_is_named_is_found() {
    let setting = Setting::new();
    let mut cases = 0;
    for file in 0..setting.log.segments().len() {
        let frames = frames(&setting.log.segments()[file].1);
        for &(start, end, original) in &frames {
            let last_seal = original == RecordKind::Seal as u8 && end == setting.log.segments()[file].1.len();
            for kind in 0..=255_u8 {
                let mut segments = setting.log.segments().to_vec();
                if segments[file].1[start + 4] == kind {
                    continue;
                }
                segments[file].1[start + 4] = kind;
                mend(&mut segments[file].1, &frames);
                let expected = match kind {
                    // Without its seal the last batch is an unsealed tail, whatever records it has; the evidence knows more.
                    2 | 5 | 6 | 8 | 9 if last_seal => Verdict::Truncated,
                    1..=9 => Verdict::Tampered,
                    _ => Verdict::Damaged,
                };
                let report = setting.verify(&segments, &setting.head());
                assert_eq!(report.verdict, expected, "file {file}, record at {start}, kind {kind}");
                cases += 1;
            }
        }
    }
    println!("{cases} changed kinds: all found");
}

#[test]
fn a_gap_with_more_seals_behind_it_than_one_write_can_hold_is_damage() {
    let mut setting = Setting::new();
    for _ in 0..40 {
        setting.log.batch(vec![used("film-1", 2); 3]);
    }
    let file = setting.log.segments().len() - 1;
    let seals: Vec<usize> = frames(&setting.log.segments()[file].1)
        .into_iter()
        .filter(|(.., kind)| *kind == RecordKind::Seal as u8)
        .map(|(_, end, _)| end)
        .collect();
    let (mut torn, mut damaged) = (0, 0);
    for (n, &end) in seals.iter().enumerate().take(seals.len() - 1) {
        let boundary = end.next_multiple_of(512);
        if boundary - end < 5 || boundary >= setting.log.segments()[file].1.len() {
            continue;
        }
        let mut segments = setting.log.segments().to_vec();
        segments[file].1[end..boundary].fill(0);
        let report = setting.verify(&segments, &[]);
        // The first seal behind the gap may have been in it.
        match (report.verdict, seals.len() - n - 1) {
            (Verdict::Damaged, behind) if behind > 4 => damaged += 1,
            (Verdict::Intact, behind) if behind <= 6 => torn += 1,
            (verdict, behind) => panic!("{verdict} with {behind} seals behind the gap"),
        }
    }
    assert!(torn > 0 && damaged > 20, "{torn} torn, {damaged} damaged");
}

#[test]
fn every_frame_deleted_duplicated_or_swapped_is_found() {
    let setting = Setting::new();
    let evidence = setting.head();
    let mut cases = 0;
    for file in 0..setting.log.segments().len() {
        let last_file = file + 1 == setting.log.segments().len();
        let original = &setting.log.segments()[file].1;
        let frames = frames(original);
        for (n, &(start, end, kind)) in frames.iter().enumerate() {
            let last = n + 1 == frames.len();
            let is = |wanted: RecordKind| kind == wanted as u8;
            let mut check = |what: &str, bytes: Vec<u8>, expected: Verdict| {
                let mut segments = setting.log.segments().to_vec();
                segments[file].1 = bytes;
                let report = setting.verify(&segments, &evidence);
                assert_eq!(report.verdict, expected, "{what} {n} of file {file}: {:?}", report.first_bad);
                cases += 1;
            };
            let deleted = [&original[..start], &original[end..]].concat();
            check(
                "deleted",
                deleted,
                match () {
                    // A footer is missing from a closed segment.
                    () if is(RecordKind::Footer) => Verdict::Damaged,
                    // The last seal is missing: its events are an unsealed tail, and the evidence knows more.
                    () if is(RecordKind::Seal) && last && last_file => Verdict::Truncated,
                    // The next seal covers the events of the deleted one. A footer, where there is one, was over other bytes.
                    () if is(RecordKind::Seal) && last_file => Verdict::Intact,
                    () => Verdict::Tampered,
                },
            );
            let twice = [&original[..end], &original[start..]].concat();
            check("duplicated", twice, Verdict::Tampered);
            if let Some(&(_, after, _)) = frames.get(n + 1) {
                let swapped = [&original[..start], &original[end..after], &original[start..end], &original[after..]];
                check("swapped", swapped.concat(), Verdict::Tampered);
            }
        }
    }
    println!("{cases} frames deleted, duplicated or swapped: all as expected");
}

#[test]
fn every_prefix_of_the_log_is_called_what_it_is() {
    let setting = Setting::new();
    let evidence = setting.head();
    let mut cases = 0;
    let files = setting.log.segments();
    for file in 0..files.len() {
        for end in 0..files[file].1.len() {
            let mut segments = files[..=file].to_vec();
            segments[file].1.truncate(end);
            let report = setting.verify(&segments, &evidence);
            // A footer says nothing about events: without it, the log of the first file still ends too early.
            assert_eq!(report.verdict, Verdict::Truncated, "file {file} cut at {end}: {:?}", report.first_bad);
            // Without evidence a cut is a legal state, and what was not sealed is called that.
            if end % 5 == 0 {
                let report = setting.verify(&segments, &[]);
                assert_eq!(report.verdict, Verdict::Intact, "file {file} cut at {end}");
                let seals: Vec<usize> = frames(&files[file].1)
                    .into_iter()
                    .filter(|(.., kind)| [RecordKind::Seal as u8, RecordKind::Footer as u8].contains(kind))
                    .map(|(_, end, _)| end)
                    .collect();
                let clean = seals.contains(&end) || end == SegmentHeader::LEN || (end == 0);
                assert_eq!(report.tail.is_none(), clean, "file {file} cut at {end}");
            }
            cases += 1;
        }
    }
    println!("{cases} prefixes: all truncated against the evidence");
}

#[test]
fn a_file_cut_short_in_the_middle_of_the_log_is_found() {
    let setting = Setting::new();
    let files = setting.log.segments();
    let frames = frames(&files[0].1);
    for end in (0..files[0].1.len()).step_by(3).chain(frames.iter().map(|(_, end, _)| *end)) {
        let mut segments = files.to_vec();
        segments[0].1.truncate(end);
        let at_end = end == files[0].1.len();
        let whole = frames.iter().rposition(|(_, record_end, _)| *record_end == end);
        let expected = match whole {
            _ if at_end => Verdict::Intact,
            // It ends with a seal, and has no footer.
            Some(n) if frames[n].2 == RecordKind::Seal as u8 => Verdict::Damaged,
            // It ends with events that no seal covers.
            Some(_) => Verdict::Tampered,
            None => Verdict::Damaged,
        };
        let report = setting.verify(&segments, &setting.head());
        assert_eq!(
            report.verdict,
            if end == SegmentHeader::LEN { Verdict::Damaged } else { expected },
            "cut at {end}: {:?}",
            report.first_bad
        );
    }
}

#[test]
fn an_unsealed_tail_is_a_note_and_never_an_event() {
    let mut setting = Setting::new();
    let sealed = setting.log.segments().last().unwrap().1.len() as u64;
    setting.log.unsealed(vec![used("film-9", 1), used("film-9", 1)]);
    let report = setting.verify(setting.log.segments(), &setting.head());
    assert_eq!((report.verdict, report.events), (Verdict::Intact, 6));
    assert_eq!(report.notes, [Note::UnsealedTail]);
    let tail = report.tail.unwrap();
    assert_eq!((tail.offset, tail.records), (sealed, 2));
}

#[test]
fn whole_files_missing_foreign_older_or_repeated_are_named_for_what_they_are() {
    let setting = Setting::new();
    let files = setting.log.segments();
    let evidence = setting.head();
    let verdict = |segments: &[Segment]| setting.verify(segments, &evidence).verdict;
    assert_eq!(verdict(&files[..1]), Verdict::Truncated, "the last file is missing");
    assert_eq!(verdict(&files[1..]), Verdict::Truncated, "the first file is missing");
    assert_eq!(verdict(&[]), Verdict::Truncated, "an emptied directory");
    let foreign = LogMaker::sample(&setting.hypervisor, &setting.image, 7);
    assert_eq!(verdict(foreign.segments()), Verdict::Forked, "another log");
    assert_eq!(verdict(&[files[0].clone(), foreign.segments()[1].clone()]), Verdict::Tampered, "a foreign file");
    let mut misnamed = files.to_vec();
    misnamed[1].0.epoch.0 += 1;
    assert_eq!(verdict(&misnamed), Verdict::Tampered, "a file under another name");
    let mut longer = setting.log.clone();
    longer.roll();
    longer.batch(vec![used("film-1", 1)]);
    assert_eq!(verdict(longer.segments()), Verdict::Intact, "a log that went on");
    let without_middle = [longer.segments()[0].clone(), longer.segments()[2].clone()];
    assert_eq!(verdict(&without_middle), Verdict::Tampered, "a file missing in the middle");
    let newer = [Evidence::checkpoint(&longer.note()).unwrap()];
    assert_eq!(setting.verify(files, &newer).verdict, Verdict::Truncated, "an older copy");
}

#[test]
fn two_histories_from_one_head_contradict_each_other() {
    let setting = Setting::new();
    let (mut one, mut two) = (setting.log.clone(), setting.log.clone());
    one.batch(vec![used("film-1", 1)]);
    two.batch(vec![used("film-2", 1)]);
    for receipt in &two.receipts[6..] {
        let evidence = [Evidence::receipt(&receipt.to_bytes()).unwrap()];
        assert_eq!(setting.verify(one.segments(), &evidence).verdict, Verdict::Forked);
        assert_eq!(setting.verify(two.segments(), &evidence).verdict, Verdict::Intact);
    }
    let note = [Evidence::checkpoint(&two.note()).unwrap()];
    assert_eq!(setting.verify(one.segments(), &note).verdict, Verdict::Forked);
    // Two boots from one head: both epochs are genuine, and only one of them can be the log's.
    let (mut one, mut two) = (setting.log.clone(), setting.log.clone());
    one.open_epoch(&setting.image);
    two.open_epoch(&setting.image);
    two.batch(vec![used("film-2", 1)]);
    let note = [Evidence::checkpoint(&two.note()).unwrap()];
    assert_eq!(setting.verify(one.segments(), &note).verdict, Verdict::Truncated);
}

#[test]
fn receipts_hold_for_every_event_and_a_dropped_tail_is_caught_by_them() {
    let setting = Setting::new();
    let files = setting.log.segments();
    for receipt in &setting.log.receipts {
        let evidence = [Evidence::receipt(&receipt.to_bytes()).unwrap()];
        assert_eq!(setting.verify(files, &evidence).verdict, Verdict::Intact);
        let size = receipt.seal.state.size;
        // Everything before the batch that the receipt is for.
        let (file, frames) = if size <= 4 { (0, frames(&files[0].1)) } else { (1, frames(&files[1].1)) };
        let mut segments = files[..=file].to_vec();
        let seal = frames.iter().find(|(start, _, kind)| {
            *kind == RecordKind::Seal as u8 && {
                let at = start + RECORD_HEAD + 24;
                u64::from_be_bytes(files[file].1[at..at + 8].try_into().unwrap()) == size
            }
        });
        segments[file].1.truncate(seal.unwrap().0);
        assert_eq!(setting.verify(&segments, &evidence).verdict, Verdict::Truncated, "{}", receipt.sequence);
    }
}

#[test]
fn an_epoch_of_another_image_is_refused_unless_it_is_expected_too() {
    let setting = Setting::new();
    let stranger = MockImage::named("stranger");
    let mut log = setting.log.clone();
    log.open_epoch(&stranger);
    log.batch(vec![used("film-1", 2)]);
    let report = setting.verify(log.segments(), &[]);
    assert_eq!((report.verdict, report.events), (Verdict::Tampered, 6));
    assert!(report.first_bad.unwrap().what.contains("unexpected-image"));
    let both = Measurements::new(vec![setting.image.expected("old"), stranger.expected("new")]).unwrap();
    let report = verify(&setting.hypervisor, both, log.segments(), &[]);
    assert_eq!(report.verdict, Verdict::Intact);
    let labels: Vec<_> = report.epochs.iter().map(|epoch| epoch.image.clone().unwrap()).collect();
    assert_eq!(labels, ["old", "old", "new"]);
}

#[test]
fn a_log_of_another_root_of_trust_is_refused_whatever_it_says() {
    let setting = Setting::new();
    let impostor = MockHypervisor::new(Arc::new(SystemClock));
    let forged = LogMaker::sample(&impostor, &setting.image, 1);
    assert_eq!(setting.verify(forged.segments(), &[]).verdict, Verdict::Tampered);
}

#[test]
fn a_checkpoint_inside_the_log_must_be_the_logs_own() {
    let mut setting = Setting::new();
    setting.log.checkpoint();
    assert_eq!(setting.verify(setting.log.segments(), &setting.head()).verdict, Verdict::Intact);
    let file = setting.log.segments().len() - 1;
    let frames = frames(&setting.log.segments()[file].1);
    let &(start, end, _) = frames.last().unwrap();
    for at in start + RECORD_HEAD..end {
        let mut segments = setting.log.segments().to_vec();
        segments[file].1[at] ^= 1;
        mend(&mut segments[file].1, &frames);
        let verdict = setting.verify(&segments, &[]).verdict;
        assert_eq!(verdict, Verdict::Tampered, "byte {at}");
    }
}
