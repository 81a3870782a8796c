//! A log in a directory: its segment files, and the walk over them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use indicatif::ProgressBar;
use packed::Unpack;
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

/// Verifies a log. What reaches `sink`, where somebody wants the events, lies under a verified seal, but the log is known as a
/// whole only by the report.
pub(super) fn verify(
    log: &LogArgs,
    global: &Global,
    environment: &Environment,
    sink: Option<&mut dyn FnMut(SealedEvent)>,
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
    let segments = Segments::of(&log.directories())?;
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
pub(super) fn intact(
    log: &LogArgs,
    global: &Global,
    environment: &Environment,
    sink: &mut dyn FnMut(SealedEvent),
) -> Result<Source, Failure> {
    let Verified { report, ignored } = verify(log, global, environment, Some(sink))?;
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
pub(super) fn unverified(dirs: &[PathBuf], sink: &mut dyn FnMut(SealedEvent)) -> Result<Source, Failure> {
    let segments = Segments::of(dirs)?;
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

/// The segment files of some directories, in the order of the log; of a segment that is there more than once, as it is while
/// it is being moved, the file of the first directory, and there the one that is not packed.
pub(super) struct Segments {
    files: BTreeMap<String, (SegmentName, PathBuf)>,
    ignored: Vec<String>,
}

impl Segments {
    pub(super) fn of(dirs: &[PathBuf]) -> Result<Self, Failure> {
        let mut segments = Self { files: BTreeMap::new(), ignored: Vec::new() };
        for dir in dirs {
            segments.add(dir).map_err(|error| Failure::file(dir, &error))?;
        }
        segments.ignored.sort();
        if segments.files.is_empty() {
            let dir = dirs.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
            return Err(Failure::file(dir, &"holds no log: no segment files (*.seg, *.seg.gz)"));
        }
        Ok(segments)
    }

    fn add(&mut self, dir: &Path) -> io::Result<()> {
        let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        // What is packed sorts behind what is not.
        paths.sort();
        for path in paths {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = file.strip_suffix(packed::SUFFIX).unwrap_or(&file);
            if !name.ends_with(".seg") {
                continue;
            }
            match name.parse::<SegmentName>() {
                Ok(segment) => {
                    self.files.entry(name.to_owned()).or_insert((segment, path));
                }
                Err(_) => self.ignored.push(file),
            }
        }
        Ok(())
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
            let mut file = Content { path, reader: None };
            loop {
                let read = match file.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(error) if packed::is_damage(&error) => break,
                    Err(error) => return Err(at(error)),
                };
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

/// Opens a segment file, packed or not, at a position in the segment.
pub(super) fn open(path: &Path, position: u64) -> io::Result<Box<dyn Read + Send>> {
    let mut file = File::open(path)?;
    if path.extension().is_none_or(|extension| extension == "seg") {
        file.seek(SeekFrom::Start(position))?;
        return Ok(Box::new(file));
    }
    let mut trailer = [0; 4];
    // A file without a trailer is none that was packed, which is found when it is read.
    if let Some(place) = file.metadata()?.len().checked_sub(4) {
        file.read_exact_at(&mut trailer, place)?;
    }
    let mut unpack = Unpack::new(file, packed::length(trailer))?;
    unpack.skip(position)?;
    Ok(Box::new(unpack))
}

/// A segment file that is opened when it is read: what is wrong with its beginning is found like the rest.
struct Content<'p> {
    path: &'p Path,
    reader: Option<Box<dyn Read + Send>>,
}

impl Read for Content<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.reader {
            Some(reader) => reader.read(bytes),
            None => self.reader.insert(open(self.path, 0)?).read(bytes),
        }
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
        let failure = Segments::of(&[dir.path().to_owned()]).err().unwrap();
        assert_eq!(failure.exit, Exit::Malformed);
    }
}
