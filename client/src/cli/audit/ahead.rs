//! Verifying on every core: what needs no knowledge of the log is done ahead of the verifier.
//!
//! One thread reads the files and cuts them into records, one digests each file for its footer, as many as there are cores
//! decode and hash the entries; the caller's thread walks the chain over what they have prepared, in the order of the log.
//! The queues between them are short, so memory does not grow with the log.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SendError, SyncSender, sync_channel},
    },
    thread,
};

use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};
use transcode_confidential::{
    audit::{
        segment::{Record, RecordBuffer, RecordKind, SegmentHeader, SegmentName},
        verify::{LogVerifier, PreparedRecord, SealedEvent},
    },
    ids::Digest,
};

use super::stored;

/// Bytes that are read at a time.
const CHUNK: usize = 256 * 1024;
/// Chunks that may be under way between two threads.
const QUEUE: usize = 16;

/// Hands segments to a verifier until they end or it has seen enough.
///
/// # Errors
/// The file that cannot be read.
pub(super) fn verify<'a>(
    files: impl Iterator<Item = &'a (SegmentName, PathBuf)> + Send,
    verifier: &mut LogVerifier,
    bar: &ProgressBar,
    sink: &mut dyn FnMut(SealedEvent),
) -> Result<(), (PathBuf, io::Error)> {
    let (parts, coming) = sync_channel(QUEUE);
    let (jobs, waiting) = sync_channel(QUEUE);
    let (digests, digesting) = sync_channel(QUEUE);
    let waiting = Mutex::new(waiting);
    thread::scope(|scope| {
        scope.spawn(move || digest(&digesting));
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| prepare(&waiting));
        }
        scope.spawn(move || {
            let reader = Reader { parts, jobs, digests };
            for (name, path) in files {
                if reader.segment(*name, path).is_err() {
                    return;
                }
            }
        });
        walk(coming, verifier, bar, sink)
    })
}

/// What comes next for the verifier.
enum Part {
    Segment(SegmentName),
    /// As they lie in the file: its header, and what cannot be cut into records.
    Bytes(Vec<u8>),
    Records {
        prepared: Receiver<Vec<PreparedRecord>>,
        bytes: usize,
        /// The digest of the file before the last of them, where that is a footer.
        content: Option<Receiver<Digest>>,
    },
    /// The rest of the segment cannot be unpacked.
    Unreadable(String),
    Failed(PathBuf, io::Error),
}

/// Records to be prepared, and where they go then.
struct Job(Vec<Record>, SyncSender<Vec<PreparedRecord>>);

/// What the digesting thread is told.
enum Digesting {
    Begin,
    /// This many of these bytes.
    Bytes(Vec<u8>, usize),
    Tell(SyncSender<Digest>),
}

/// The verifier has seen enough: nobody takes what is read any more.
struct Gone;

impl<T> From<SendError<T>> for Gone {
    fn from(_: SendError<T>) -> Self {
        Self
    }
}

struct Reader {
    parts: SyncSender<Part>,
    jobs: SyncSender<Job>,
    digests: SyncSender<Digesting>,
}

impl Reader {
    fn segment(&self, name: SegmentName, path: &Path) -> Result<(), Gone> {
        self.parts.send(Part::Segment(name))?;
        match stored::open(path, 0).map(|mut file| self.content(&mut file)) {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Err(gone)) => Err(gone),
            Ok(Ok(Err(error))) | Err(error) if packed::is_damage(&error) => {
                Ok(self.parts.send(Part::Unreadable(error.to_string()))?)
            }
            Ok(Ok(Err(error))) | Err(error) => {
                self.parts.send(Part::Failed(path.to_owned(), error))?;
                Err(Gone)
            }
        }
    }

    /// Nobody wants more, or the file cannot be read, or neither.
    fn content(&self, file: &mut Box<dyn Read>) -> Result<io::Result<()>, Gone> {
        let mut chunk = Vec::new();
        let mut next = |length: usize| {
            chunk.clear();
            file.by_ref().take(length as u64).read_to_end(&mut chunk).map(|_| std::mem::take(&mut chunk))
        };
        let head = match next(SegmentHeader::LEN) {
            Ok(head) => head,
            Err(error) => return Ok(Err(error)),
        };
        self.digests.send(Digesting::Begin)?;
        self.digests.send(Digesting::Bytes(head.clone(), head.len()))?;
        self.parts.send(Part::Bytes(head))?;
        let mut records = RecordBuffer::at(SegmentHeader::LEN as u64);
        let mut readable = true;
        loop {
            let bytes = match next(CHUNK) {
                Ok(bytes) => bytes,
                Err(error) => return Ok(Err(error)),
            };
            if bytes.is_empty() {
                break;
            }
            if readable {
                records.push(&bytes);
                readable = self.cut(&mut records)?;
                if !readable {
                    self.parts.send(Part::Bytes(records.rest().to_vec()))?;
                }
            } else {
                self.parts.send(Part::Bytes(bytes))?;
            }
        }
        if readable && !records.rest().is_empty() {
            self.parts.send(Part::Bytes(records.rest().to_vec()))?;
        }
        Ok(Ok(()))
    }

    /// Cuts what there is into records and has them prepared; `false` where it cannot be cut any further.
    fn cut(&self, buffer: &mut RecordBuffer) -> Result<bool, Gone> {
        let (mut raw, mut start) = (buffer.rest().to_vec(), buffer.offset());
        let mut records = Vec::new();
        loop {
            let at = buffer.offset();
            let record = buffer.next_record();
            let ended = !matches!(record, Ok(Some(_)));
            let mut content = None;
            if let Ok(Some(record)) = &record
                && record.kind == RecordKind::Footer
            {
                // The footer names the digest of what lies before it.
                let rest = raw.split_off(distance(start, at).min(raw.len()));
                self.digests.send(Digesting::Bytes(std::mem::replace(&mut raw, rest), distance(start, at)))?;
                start = at;
                let (tell, told) = sync_channel(1);
                self.digests.send(Digesting::Tell(tell))?;
                content = Some(told);
            }
            let readable = record.is_ok();
            records.extend(record.ok().flatten());
            if ended || content.is_some() {
                let records = std::mem::take(&mut records);
                if !records.is_empty() {
                    let bytes = records.iter().map(Record::disk_len).sum();
                    let (done, prepared) = sync_channel(1);
                    self.jobs.send(Job(records, done))?;
                    self.parts.send(Part::Records { prepared, bytes, content })?;
                }
            }
            if ended {
                let length = distance(start, buffer.offset());
                self.digests.send(Digesting::Bytes(raw, length))?;
                return Ok(readable);
            }
        }
    }
}

fn distance(from: u64, to: u64) -> usize {
    usize::try_from(to - from).unwrap_or(usize::MAX)
}

fn prepare(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job(records, done)) = job else { return };
        // Who waited may have seen enough.
        let _ = done.send(records.into_iter().map(PreparedRecord::new).collect());
    }
}

fn digest(digesting: &Receiver<Digesting>) {
    let mut content = Sha256::new();
    for step in digesting {
        match step {
            Digesting::Begin => content = Sha256::new(),
            Digesting::Bytes(bytes, length) => content.update(bytes.get(..length).unwrap_or(&bytes)),
            Digesting::Tell(tell) => {
                let _ = tell.send(Digest::new(content.clone().finalize().into()));
            }
        }
    }
}

/// The caller's thread. What it takes over is dropped when it has seen enough, and so the others end.
fn walk(
    coming: Receiver<Part>,
    verifier: &mut LogVerifier,
    bar: &ProgressBar,
    sink: &mut dyn FnMut(SealedEvent),
) -> Result<(), (PathBuf, io::Error)> {
    for part in coming {
        match part {
            _ if verifier.has_failed() => break,
            Part::Segment(name) => verifier.segment(name),
            Part::Bytes(bytes) => {
                verifier.push(&bytes, sink);
                bar.inc(bytes.len() as u64);
            }
            Part::Records { prepared, bytes, content } => {
                // A thread that ends without an answer has panicked, and the scope passes that on.
                let Ok(mut prepared) = prepared.recv() else { break };
                if let Some(content) = content.and_then(|told| told.recv().ok())
                    && let Some(footer) = prepared.pop()
                {
                    prepared.push(footer.after_content(content));
                }
                verifier.push_prepared(prepared, sink);
                bar.inc(bytes as u64);
            }
            Part::Unreadable(what) => verifier.unreadable(what),
            Part::Failed(path, error) => return Err((path, error)),
        }
    }
    Ok(())
}
