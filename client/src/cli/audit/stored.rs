//! A log in a directory: its segment files, and the walk over them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use indicatif::ProgressBar;
use transcode_confidential::{
    audit::{
        decode_leaf,
        segment::{Record, RecordBuffer, RecordKind, SegmentHeader, SegmentName},
        tree::Frontier,
        verify::{Evidence, LogVerifier, Report, SealedEvent, Verdict},
    },
    fold::Snapshot,
    ids::Sequence,
};

use super::{ahead, source::Source};
use crate::cli::{
    args::{Global, LogArgs},
    connection,
    environment::Environment,
    exit::Failure,
    files, progress,
};

/// Bytes that are read at a time.
const CHUNK: usize = 256 * 1024;

/// What a verification found.
pub(super) struct Verified {
    pub(super) report: Report,
    /// Files that are called `*.seg`, but not as segments are.
    pub(super) ignored: Vec<String>,
}

/// Verifies a log. What reaches `sink` lies under a verified seal, but the log is known as a whole only by the report.
pub(super) fn verify(
    log: &LogArgs,
    global: &Global,
    environment: &Environment,
    sink: &mut dyn FnMut(SealedEvent),
) -> Result<Verified, Failure> {
    let mut verifier = LogVerifier::new(connection::root(global)?, connection::image_policy(global, environment)?);
    for path in &log.checkpoint {
        let evidence = Evidence::checkpoint(&files::read_text(path)?);
        verifier.expect(evidence.map_err(|error| Failure::file(path, &error))?);
    }
    for path in &log.receipt {
        let evidence = Evidence::receipt(&receipt_bytes(files::read(path)?));
        verifier.expect(evidence.map_err(|error| Failure::file(path, &error))?);
    }
    let segments = Segments::of(&log.dir)?;
    let bar = segments.bar();
    ahead::verify(segments.files.values(), &mut verifier, &bar, sink)
        .map_err(|(path, error)| Failure::file(&path, &error))?;
    bar.finish_and_clear();
    Ok(Verified { report: verifier.finish(), ignored: segments.ignored })
}

/// Reads the events of a log that is intact.
///
/// # Errors
/// Where it is not. So what `sink` gets must not be shown before this has returned.
pub(in crate::cli) fn intact(
    log: &LogArgs,
    global: &Global,
    environment: &Environment,
    sink: &mut dyn FnMut(SealedEvent),
) -> Result<Source, Failure> {
    let Verified { report, ignored } = verify(log, global, environment, sink)?;
    match &report.first_bad {
        None if report.verdict == Verdict::Intact => Ok(Source::stored(report, ignored_note(&ignored))),
        _ => Err(not_intact(&report)),
    }
}

/// The tree before the first event that a log has, where that is a snapshot: it stands for the events before it.
pub(super) fn before(first: &SealedEvent) -> Option<Frontier> {
    let part = first.attachments.first().filter(|_| first.event.sequence > Sequence(0))?;
    Snapshot::place(&part.payload).ok().map(|(_, chain)| chain.frontier().clone())
}

/// The failure of whoever wanted events of a log that is not intact.
pub(super) fn not_intact(report: &Report) -> Failure {
    let what = report.first_bad.as_ref().map(ToString::to_string).unwrap_or_default();
    let message = format!(
        "the log is {}: {what}; none of it is used. confidential audit verify says more, --danger-unverified reads it all \
         the same",
        report.verdict
    );
    Failure::verification(message).because(report.verdict.to_string())
}

/// Reads whatever looks like an event.
pub(super) fn unverified(dir: &Path, sink: &mut dyn FnMut(SealedEvent)) -> Result<Source, Failure> {
    let segments = Segments::of(dir)?;
    read_unverified(&segments, sink)?;
    Ok(Source::unverified(ignored_note(&segments.ignored)))
}

/// Whatever decodes as an event, up to the first record of each file that cannot be read.
fn read_unverified(segments: &Segments, sink: &mut dyn FnMut(SealedEvent)) -> Result<(), Failure> {
    let mut records = RecordBuffer::default();
    let mut header = 0;
    let mut attachments: Vec<Record> = Vec::new();
    let mut readable = true;
    segments.read(|step| {
        match step {
            Step::Segment => {
                records = RecordBuffer::at(SegmentHeader::LEN as u64);
                header = SegmentHeader::LEN;
                attachments.clear();
                readable = true;
            }
            Step::Bytes(bytes) if readable => {
                let skipped = header.min(bytes.len());
                header -= skipped;
                records.push(bytes.get(skipped..).unwrap_or_default());
                loop {
                    match records.next_record() {
                        Ok(Some(record)) if record.kind == RecordKind::Entry => {
                            let attachments = std::mem::take(&mut attachments);
                            if let Ok(event) = decode_leaf(&record.payload) {
                                sink(SealedEvent { event, attachments });
                            }
                        }
                        Ok(Some(record)) if record.kind.is_attachment() && attachments.len() < 16 => {
                            attachments.push(record);
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => {
                            readable = false;
                            break;
                        }
                    }
                }
            }
            Step::Bytes(_) => {}
        }
        true
    })
}

pub(super) fn ignored_note(ignored: &[String]) -> Option<String> {
    let names = || format!("not segments of a log by their names, ignored: {}", ignored.join(", "));
    (!ignored.is_empty()).then(names)
}

/// A receipt is kept as base64 or as it is; CBOR is never valid base64, because its first byte is no ASCII.
pub(super) fn receipt_bytes(content: Vec<u8>) -> Vec<u8> {
    STANDARD.decode(content.trim_ascii()).unwrap_or(content)
}

enum Step<'a> {
    Segment,
    Bytes(&'a [u8]),
}

/// The segment files of a directory, in the order of the log.
pub(super) struct Segments {
    files: BTreeMap<String, (SegmentName, PathBuf)>,
    ignored: Vec<String>,
}

impl Segments {
    pub(super) fn of(dir: &Path) -> Result<Self, Failure> {
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

    /// Names and paths.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&SegmentName, &Path)> {
        self.files.values().map(|(name, path)| (name, path.as_path()))
    }

    /// A bar over the length of all files.
    fn bar(&self) -> ProgressBar {
        let sizes = self.files.values().map(|(_, path)| fs::metadata(path).map_or(0, |metadata| metadata.len()));
        progress::bar(Some(sizes.sum()))
    }

    /// Gives all files to `take`, until it wants no more.
    fn read(&self, mut take: impl FnMut(Step<'_>) -> bool) -> Result<(), Failure> {
        let bar = self.bar();
        let mut chunk = vec![0; CHUNK];
        'files: for (_, path) in self.files.values() {
            if !take(Step::Segment) {
                break;
            }
            let at = |error: std::io::Error| Failure::file(path, &error);
            let mut file = File::open(path).map_err(at)?;
            loop {
                let read = file.read(&mut chunk).map_err(at)?;
                if read == 0 {
                    break;
                }
                if !take(Step::Bytes(chunk.get(..read).unwrap_or_default())) {
                    break 'files;
                }
                bar.inc(read as u64);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;

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
