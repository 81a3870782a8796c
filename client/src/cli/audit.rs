//! `confidential audit`: a stored log, verified offline.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use transcode_confidential::audit::{
    segment::SegmentName,
    verify::{EpochSummary, Evidence, LogVerifier, Note, Report, Verdict},
};

use super::{
    args::{AuditVerb, Global},
    connection,
    environment::Environment,
    exit::{Done, Exit, Failure},
    files::{self, Access},
    progress,
    terminal::line,
};

/// Bytes that are read at a time.
const CHUNK: usize = 256 * 1024;

pub(super) fn run(verb: AuditVerb, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    match verb {
        AuditVerb::Verify { dir, checkpoint, receipt } => verify(&dir, &checkpoint, &receipt, global, environment),
        AuditVerb::Checkpoint { output } => fetch_checkpoint(output.as_deref(), global, environment),
    }
}

fn fetch_checkpoint(output: Option<&Path>, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let configured = connection::client(global, environment)?;
    let view = connection::block_on(async { Ok(configured.client.log().await?) })?;
    let (checkpoint, state) = (view.checkpoint(), view.checkpoint().state());
    let text = match output {
        None => checkpoint.note().trim_end().to_owned(),
        Some(path) => {
            files::replace(path, checkpoint.note().as_bytes(), Access::Public)?;
            format!("wrote {}: log {}, {} events", path.display(), view.log_id(), state.size)
        }
    };
    let json = json!({ "log_id": view.log_id(), "state": state, "checkpoint": checkpoint.note() });
    let mut done = Done::ok(json, text);
    done.notes = configured.notes(&view);
    Ok(done)
}

fn verify(
    dir: &Path,
    checkpoint: &[PathBuf],
    receipt: &[PathBuf],
    global: &Global,
    environment: &Environment,
) -> Result<Done, Failure> {
    let mut verifier = LogVerifier::new(connection::root(global)?, connection::image_policy(global, environment)?);
    for path in checkpoint {
        let evidence = Evidence::checkpoint(&files::read_text(path)?);
        verifier.expect(evidence.map_err(|error| Failure::file(path, &error))?);
    }
    for path in receipt {
        let evidence = Evidence::receipt(&receipt_bytes(files::read(path)?));
        verifier.expect(evidence.map_err(|error| Failure::file(path, &error))?);
    }
    let log = Segments::of(dir)?;
    log.read(&mut verifier)?;
    let report = verifier.finish();
    let mut done = Done {
        exit: if report.verdict == Verdict::Intact { Exit::Ok } else { Exit::Verification },
        json: object(&report, global.any_image, &log.ignored),
        text: text(&report, global.any_image),
        notes: Vec::new(),
    };
    if !log.ignored.is_empty() {
        done.notes.push(format!("not segments of a log by their names, ignored: {}", log.ignored.join(", ")));
    }
    Ok(done)
}

/// A receipt is kept as base64 or as it is; CBOR is never valid base64, because its first byte is no ASCII.
fn receipt_bytes(content: Vec<u8>) -> Vec<u8> {
    STANDARD.decode(content.trim_ascii()).unwrap_or(content)
}

/// The segment files of a directory, in the order of the log.
struct Segments {
    files: BTreeMap<String, (SegmentName, PathBuf)>,
    ignored: Vec<String>,
}

impl Segments {
    fn of(dir: &Path) -> Result<Self, Failure> {
        let at = |error: std::io::Error| Failure::file(dir, &error);
        let mut segments = Self { files: BTreeMap::new(), ignored: Vec::new() };
        for entry in fs::read_dir(dir).map_err(at)? {
            let path = entry.map_err(at)?.path();
            if path.extension().is_none_or(|extension| extension != "seg") {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match name.parse::<SegmentName>() {
                Ok(segment) => {
                    segments.files.insert(name, (segment, path));
                }
                Err(_) => segments.ignored.push(name),
            }
        }
        segments.ignored.sort();
        if segments.files.is_empty() {
            return Err(Failure::file(dir, &"holds no log: no segment files (*.seg)"));
        }
        Ok(segments)
    }

    fn read(&self, verifier: &mut LogVerifier) -> Result<(), Failure> {
        let sizes = self.files.values().map(|(_, path)| fs::metadata(path).map_or(0, |metadata| metadata.len()));
        let bar = progress::bar(Some(sizes.sum()));
        let mut chunk = vec![0; CHUNK];
        for (name, path) in self.files.values() {
            if verifier.has_failed() {
                break;
            }
            verifier.segment(*name);
            let at = |error: std::io::Error| Failure::file(path, &error);
            let mut file = File::open(path).map_err(at)?;
            loop {
                let read = file.read(&mut chunk).map_err(at)?;
                if read == 0 {
                    break;
                }
                verifier.push(chunk.get(..read).unwrap_or_default(), &mut |_| {});
                bar.inc(read as u64);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }
}

fn object(report: &Report, any_image: bool, ignored: &[String]) -> serde_json::Value {
    json!({
        "verdict": report.verdict,
        "events": report.events,
        "epochs": report.epochs.len(),
        "head": report.head,
        "first_bad": report.first_bad,
        "notes": report.notes,
        "image": if any_image { "unchecked" } else { "expected" },
        "log_id": report.log_id,
        "log_key": report.log_key,
        "epoch_list": report.epochs,
        "tail": report.tail,
        "ignored": ignored,
    })
}

fn text(report: &Report, any_image: bool) -> String {
    let mut text = report.verdict.to_string().to_uppercase();
    let _ = match (report.verdict, &report.first_bad) {
        (Verdict::Intact, _) => write!(text, ": {} events in {} epochs", report.events, report.epochs.len()),
        (_, Some(finding)) => write!(text, ": {}", line(&finding.to_string())),
        (_, None) => Ok(()),
    };
    if report.verdict != Verdict::Intact {
        let _ = write!(text, "\n  verified up to there: {} events in {} epochs", report.events, report.epochs.len());
    }
    if let Some(log_id) = report.log_id {
        let _ = write!(text, "\n  log    {log_id}");
    }
    if let Some(head) = &report.head {
        let _ = write!(text, "\n  head   {} events, root {}", head.size, head.root);
    }
    for epoch in &report.epochs {
        let _ = write!(text, "\n  epoch  {}", describe(epoch));
    }
    for note in &report.notes {
        let _ = write!(text, "\n  note   {note}: {}", explain(*note));
    }
    if any_image && !report.notes.contains(&Note::ImageUnchecked) {
        let _ = write!(text, "\n  note   {}: {}", Note::ImageUnchecked, explain(Note::ImageUnchecked));
    }
    text
}

fn describe(epoch: &EpochSummary) -> String {
    let image = match &epoch.image {
        Some(label) => line(label),
        None => format!("image not checked, PCR0 {}", epoch.pcr0),
    };
    format!(
        "{}: {} events from {}, opened {} by {} ({image})",
        epoch.epoch,
        epoch.events,
        epoch.first,
        epoch.opened_at,
        line(&epoch.enclave_id)
    )
}

const fn explain(note: Note) -> &'static str {
    match note {
        Note::UnsealedTail => "the last write was interrupted; nobody was ever told of those events",
        Note::Unanchored => {
            "no --checkpoint or --receipt was given, so a tail cut off between two seals would not show"
        }
        Note::ImageUnchecked => "any enclave image was accepted as the author",
        Note::UnknownEpoch => "the signature of some evidence could not be checked against this log",
        _ => "see the documentation",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_read_in_either_form() {
        let binary = vec![0xa5, 0, 1, 0xff];
        assert_eq!(receipt_bytes(binary.clone()), binary);
        assert_eq!(receipt_bytes(format!(" {}\n", STANDARD.encode(&binary)).into_bytes()), binary);
    }

    #[test]
    fn a_directory_without_segments_holds_no_log() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "x").unwrap();
        fs::write(dir.path().join("mine.seg"), "x").unwrap();
        let failure = Segments::of(dir.path()).err().unwrap();
        assert_eq!(failure.exit, Exit::Malformed);
    }
}
