//! `confidential audit verify` on logs as enclaves write them, and on what an operator might make of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail loudly"
)]

use std::{fs, path::PathBuf, sync::Arc, thread, time::Duration};

use serde_json::{Value, json};
use testkit::{
    log_maker::{LogMaker, Segment, used, verify},
    nsm::{MockHypervisor, MockImage},
    segments,
};
use transcode_confidential::{
    audit::{segment::RecordKind, verify::Verdict},
    protocol::api::ReceiptText,
    time::SystemClock,
};

/// A log in a directory, and what its auditor has.
struct Audit {
    dir: tempfile::TempDir,
    hypervisor: MockHypervisor,
    image: MockImage,
    log: LogMaker,
}

impl Audit {
    fn new() -> Self {
        let hypervisor = MockHypervisor::new(Arc::new(SystemClock));
        let image = MockImage::named("enclave");
        let log = LogMaker::sample(&hypervisor, &image, 1);
        let audit = Self { dir: tempfile::tempdir().unwrap(), hypervisor, image, log };
        fs::create_dir(audit.path("log")).unwrap();
        fs::write(audit.path("root.pem"), audit.hypervisor.root_pem()).unwrap();
        fs::write(audit.path("m.json"), audit.image.measurements("release 7").to_json()).unwrap();
        audit.store(audit.log.segments());
        audit
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self, segments: &[Segment]) {
        for file in fs::read_dir(self.path("log")).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        for (name, bytes) in segments {
            fs::write(self.path("log").join(name.to_string()), bytes).unwrap();
        }
    }

    /// Runs the command; `@name` stands for a file of this audit.
    fn run(&self, args: &[&str]) -> (u8, String) {
        let place = |arg: &&str| match arg.strip_prefix('@') {
            Some(name) => self.path(name).into_os_string(),
            None => arg.into(),
        };
        let base = ["confidential", "audit", "verify", "@log", "--root", "@root.pem"];
        let args: Vec<_> = base.iter().chain(args).map(place).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = client::cli::run_with(args, &mut out, &mut err);
        (exit.code(), String::from_utf8(out).unwrap())
    }

    fn json(&self, code: u8, args: &[&str]) -> Value {
        let args: Vec<_> = ["--json", "--measurements", "@m.json"].iter().chain(args).copied().collect();
        let (exit, out) = self.run(&args);
        assert_eq!(exit, code, "{out}");
        serde_json::from_str(&out).unwrap()
    }
}

#[test]
fn a_whole_log_is_intact_and_the_object_says_what_scripts_rely_on() {
    let audit = Audit::new();
    let verdict = audit.json(0, &[]);
    let (size, state) = (audit.log.chain().size(), audit.log.chain().state());
    assert_eq!(
        (&verdict["verdict"], &verdict["events"], &verdict["epochs"]),
        (&json!("intact"), &json!(size), &json!(2))
    );
    assert_eq!((&verdict["head"]["size"], &verdict["head"]["root"]), (&json!(size), &json!(state.root.to_string())));
    assert_eq!((&verdict["first_bad"], &verdict["notes"]), (&Value::Null, &json!(["unanchored"])));
    assert_eq!((&verdict["image"], &verdict["epoch_list"][1]["image"]), (&json!("expected"), &json!("release 7")));
}

#[test]
fn a_checkpoint_and_every_receipt_of_the_log_anchor_it_in_either_form() {
    let audit = Audit::new();
    fs::write(audit.path("checkpoint"), audit.log.note()).unwrap();
    let mut args = vec!["--checkpoint".to_owned(), "@checkpoint".to_owned()];
    for (index, receipt) in audit.log.receipts.iter().enumerate() {
        let bytes =
            if index % 2 == 0 { receipt.to_bytes() } else { format!("{}\n", ReceiptText(receipt.clone())).into() };
        fs::write(audit.path(&format!("receipt-{index}")), bytes).unwrap();
        args.extend(["--receipt".to_owned(), format!("@receipt-{index}")]);
    }
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    assert_eq!(audit.json(0, &args)["notes"], json!([]));
}

#[test]
fn a_person_reads_who_wrote_what_and_what_was_not_checked() {
    let audit = Audit::new();
    let (code, text) = audit.run(&["--measurements", "@m.json"]);
    let size = audit.log.chain().size();
    assert_eq!(code, 0);
    assert!(
        text.starts_with(&format!("INTACT: {size} events in 2 epochs\n  log    {}\n", audit.log.log_id())),
        "{text}"
    );
    assert!(text.contains("  epoch  2: 2 events from ") && text.contains("(release 7)\n"), "{text}");
    assert!(text.ends_with("so a tail cut off between two seals would not show\n"), "{text}");
    let (code, text) = audit.run(&["--any-image"]);
    assert_eq!(code, 0);
    assert!(text.contains("image not checked, PCR0 ") && text.contains("note   image unchecked"), "{text}");
}

#[test]
fn a_flipped_byte_is_named_by_file_and_event() {
    let audit = Audit::new();
    let mut segments = audit.log.segments().to_vec();
    let (name, bytes) = &mut segments[1];
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    let name = name.to_string();
    audit.store(&segments);
    fs::write(audit.path("checkpoint"), audit.log.note()).unwrap();
    let verdict = audit.json(4, &["--checkpoint", "@checkpoint"]);
    assert_eq!((&verdict["verdict"], &verdict["first_bad"]["segment"]), (&json!("damaged"), &json!(name)));
    assert!(verdict["first_bad"]["offset"].is_u64() && verdict["first_bad"]["what"].is_string());
    let (_, text) = audit.run(&["--measurements", "@m.json"]);
    assert!(text.starts_with(&format!("DAMAGED: {name}, offset ")), "{text}");
}

#[test]
fn a_dropped_tail_is_intact_to_who_holds_nothing_and_truncated_to_who_holds_a_receipt() {
    let mut audit = Audit::new();
    let short = audit.log.segments().to_vec();
    audit.log.batch(vec![used("film-1", 2)]);
    let receipt = audit.log.receipts.last().unwrap();
    fs::write(audit.path("receipt"), ReceiptText(receipt.clone()).to_string()).unwrap();
    audit.store(&short);
    assert_eq!(audit.json(0, &[])["notes"], json!(["unanchored"]));
    assert_eq!(audit.json(4, &["--receipt", "@receipt"])["verdict"], "truncated");
    audit.store(audit.log.segments());
    assert_eq!(audit.json(0, &["--receipt", "@receipt"])["verdict"], "intact");
}

#[test]
fn another_history_is_forked_and_another_author_is_tampering() {
    let mut audit = Audit::new();
    let mut other = audit.log.clone();
    audit.log.batch(vec![used("film-1", 2)]);
    other.batch(vec![used("film-3", 1)]);
    fs::write(audit.path("checkpoint"), other.note()).unwrap();
    audit.store(audit.log.segments());
    assert_eq!(audit.json(4, &["--checkpoint", "@checkpoint"])["verdict"], "forked");
    let stranger = LogMaker::sample(&audit.hypervisor, &MockImage::named("stranger"), 1);
    audit.store(stranger.segments());
    let verdict = audit.json(4, &[]);
    assert_eq!((&verdict["verdict"], &verdict["events"]), (&json!("tampered"), &json!(0)));
    assert!(verdict["first_bad"]["what"].as_str().unwrap().contains("unexpected-image"), "{verdict}");
}

#[test]
fn a_log_under_another_root_is_nobodys() {
    let audit = Audit::new();
    let aws: Vec<_> = ["confidential", "--json", "audit", "verify", "--any-image"].map(Into::into).to_vec();
    let mut out = Vec::new();
    let args = aws.into_iter().chain([audit.path("log").into_os_string()]);
    assert_eq!(client::cli::run_with(args, &mut out, &mut Vec::new()).code(), 4);
    let verdict: Value = serde_json::from_slice(&out).unwrap();
    assert!(verdict["first_bad"]["what"].as_str().unwrap().contains("untrusted-root"), "{verdict}");
}

#[test]
fn verified_on_several_threads_a_spoilt_log_is_called_what_one_thread_calls_it() {
    let audit = Audit::new();
    let mut log = audit.log.clone();
    log.roll();
    log.batch(vec![used("film-3", 1)]);
    log.unsealed(vec![used("film-3", 1)]);
    assert_called_the_same(&audit, log.segments(), 40);
}

#[test]
fn a_log_of_more_than_may_be_under_way_at_once_is_called_what_one_thread_calls_it() {
    let audit = Audit::new();
    let mut log = audit.log.clone();
    for _ in 0..3 {
        log.roll();
        for _ in 0..14 {
            log.batch(vec![used("film-3", 1); 1_000]);
        }
    }
    let bytes: usize = log.segments().iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes > 17 * 256 * 1024, "what may be read ahead, and more: {bytes}");
    assert_called_the_same(&audit, log.segments(), 2);
}

#[test]
fn a_segment_that_ends_more_often_than_parts_may_wait_is_called_what_one_thread_calls_it() {
    let audit = Audit::new();
    let mut segments = audit.log.segments().to_vec();
    let (_, closed) = segments.iter_mut().find(|(_, bytes)| ends_in_a_footer(bytes)).unwrap();
    let footer = closed[segments::records(closed).pop().unwrap().0..].to_vec();
    (0..100).for_each(|_| closed.extend_from_slice(&footer));
    let (said, heard) = std::sync::mpsc::sync_channel(1);
    thread::spawn(move || {
        assert_called_the_same(&audit, &segments, 2);
        said.send(()).unwrap();
    });
    heard.recv_timeout(Duration::from_secs(120)).expect("a verdict");
}

fn ends_in_a_footer(segment: &[u8]) -> bool {
    segments::records(segment).pop().is_some_and(|(_, record)| record.kind == RecordKind::Footer)
}

/// Spoils each segment in `places`, by a flipped bit and by a missing end, and has both verify.
fn assert_called_the_same(audit: &Audit, whole: &[Segment], places: usize) {
    let mut spoilt: Vec<Vec<Segment>> = vec![whole.to_vec()];
    for file in 0..whole.len() {
        let length = whole[file].1.len();
        for at in (0..length).step_by(length / places) {
            let (mut flipped, mut cut) = (whole.to_vec(), whole.to_vec());
            flipped[file].1[at] ^= 1;
            cut[file].1.truncate(at);
            spoilt.extend([flipped, cut]);
        }
    }
    for segments in &spoilt {
        audit.store(segments);
        let report = verify(&audit.hypervisor, audit.image.measurements("release 7"), segments, &[]);
        let code = if report.verdict == Verdict::Intact { 0 } else { 4 };
        let said = audit.json(code, &[]);
        assert_eq!(
            (&said["verdict"], &said["events"], &said["first_bad"], &said["tail"]),
            (&json!(report.verdict), &json!(report.events), &json!(report.first_bad), &json!(report.tail))
        );
    }
    println!("{} logs, each called the same by both", spoilt.len());
}

/// What the parent makes of old segments: all but the last packed, the first of them in another directory.
fn age(audit: &Audit) -> Vec<PathBuf> {
    fs::create_dir_all(audit.path("archive")).unwrap();
    let segments = audit.log.segments();
    let old = &segments[..segments.len() - 1];
    old.iter()
        .enumerate()
        .map(|(number, (name, bytes))| {
            let mut file = Vec::new();
            packed::pack(&mut &bytes[..], &mut file).unwrap();
            fs::remove_file(audit.path("log").join(name.to_string())).unwrap();
            let dir = audit.path(if number == 0 { "archive" } else { "log" });
            fs::write(dir.join(format!("{name}.gz")), file).unwrap();
            dir.join(format!("{name}.gz"))
        })
        .collect()
}

#[test]
fn packed_segments_and_those_in_an_archive_are_the_same_log() {
    let audit = Audit::new();
    assert!(audit.log.segments().len() >= 2);
    let plain = audit.run(&["--measurements", "@m.json", "--json"]);
    assert_eq!(plain.0, 0);
    let old = age(&audit);
    assert_eq!(audit.run(&["--measurements", "@m.json", "--json", "--archive", "@archive"]), plain);
    // Without the archive the beginning is missing.
    let (code, out) = audit.run(&["--measurements", "@m.json", "--json"]);
    assert_eq!(code, 4, "{out}");
    // A file that is being moved is there twice.
    fs::copy(&old[0], audit.path("log").join(old[0].file_name().unwrap())).unwrap();
    assert_eq!(audit.run(&["--measurements", "@m.json", "--json", "--archive", "@archive"]), plain);
}

#[test]
fn a_flipped_byte_in_a_packed_segment_is_damage_and_the_segment_is_named() {
    let audit = Audit::new();
    let old = age(&audit);
    let good = fs::read(&old[0]).unwrap();
    let name = audit.log.segments()[0].0.to_string();
    let last = good.len() - 1;
    for at in (0..good.len()).step_by(97).chain([1, 9, 10, last - 7, last - 4, last - 3, last]) {
        let mut changed = good.clone();
        changed[at] ^= 0xff;
        fs::write(&old[0], changed).unwrap();
        let (code, out) = audit.run(&["--measurements", "@m.json", "--json", "--archive", "@archive"]);
        assert_eq!(code, 4, "byte {at}: {out}");
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["verdict"], "damaged", "byte {at}: {out}");
        assert!(out.contains(&name), "byte {at}: {out}");
    }
    for changed in [Vec::new(), vec![0x1f], good[..last].to_vec(), [&good[..], b"x"].concat()] {
        fs::write(&old[0], changed).unwrap();
        let (code, out) = audit.run(&["--measurements", "@m.json", "--json", "--archive", "@archive"]);
        assert!(code == 4 && out.contains("damaged") && out.contains(&name), "{out}");
    }
}
