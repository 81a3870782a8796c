//! Verifying on every core: what needs no knowledge of the log is done ahead of the verifier.
//!
//! One thread reads the files and cuts them where records end, one digests each file for its footer, as many as there are
//! cores decode and hash the entries; the caller's thread walks the chain over what they have prepared, in the order of the
//! log. They share the bytes that were read. The queues between them are short, so memory does not grow with the log.

use std::{
    collections::VecDeque,
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SendError, SyncSender, sync_channel},
    },
    thread,
};

use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};
use transcode_confidential::{
    audit::{
        segment::{SegmentHeader, SegmentName, WholeRecords},
        verify::{LogVerifier, Prepared, SealedEvent},
    },
    ids::Digest,
    signature::PublicKey,
};

use super::stored;

/// Bytes that are read at a time: what is shared stays in the caches of the cores, and little is moved.
const CHUNK: usize = 256 * 1024;
/// Chunks that may be under way between two threads.
const QUEUE: usize = 16;

/// Hands segments to a verifier until they end or it has seen enough, and the events to `sink` if there is one.
///
/// # Errors
/// The file that cannot be read.
pub(super) fn verify<'a>(
    files: impl Iterator<Item = &'a (SegmentName, PathBuf)> + Send,
    verifier: &mut LogVerifier,
    bar: &ProgressBar,
    sink: Option<&mut dyn FnMut(SealedEvent)>,
) -> Result<(), (PathBuf, io::Error)> {
    let (parts, coming) = sync_channel(QUEUE);
    let (jobs, waiting) = sync_channel(QUEUE);
    let (digests, digesting) = sync_channel(QUEUE);
    let waiting = Mutex::new(waiting);
    let probable = Mutex::new(None);
    let how = if sink.is_some() { Prepared::events } else { Prepared::unseen };
    thread::scope(|scope| {
        scope.spawn(move || digest(&digesting));
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| prepare(&waiting, &probable, how));
        }
        scope.spawn(move || {
            let mut reader = Reader { parts, jobs, digests, used: VecDeque::new() };
            for (name, path) in files {
                if reader.segment(*name, path).is_err() {
                    return;
                }
            }
        });
        walk(coming, verifier, &probable, bar, sink)
    })
}

/// What comes next for the verifier.
enum Part {
    Segment(SegmentName),
    /// As they lie in the file: its header, and what cannot be cut into records.
    Bytes(Vec<u8>),
    Records {
        prepared: Receiver<Prepared>,
        bytes: usize,
        /// The digest of the file before the last of them, where that is a footer.
        content: Option<Receiver<Digest>>,
    },
    /// The rest of the segment cannot be unpacked.
    Unreadable(String),
    Failed(PathBuf, io::Error),
}

/// These of the bytes that were read.
struct Piece(Arc<Vec<u8>>, Range<usize>);

/// Whole records to be prepared, and where they go then.
struct Job(Piece, SyncSender<Prepared>);

/// What the digesting thread is told.
enum Digesting {
    Begin,
    Bytes(Piece),
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
    /// What was read, oldest first: memory to read into again when the others are done with it.
    used: VecDeque<Arc<Vec<u8>>>,
}

impl Reader {
    fn segment(&mut self, name: SegmentName, path: &Path) -> Result<(), Gone> {
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
    fn content(&mut self, file: &mut Box<dyn Read>) -> Result<io::Result<()>, Gone> {
        let mut head = Vec::new();
        if let Err(error) = fill(&mut head, file, SegmentHeader::LEN) {
            return Ok(Err(error));
        }
        self.digests.send(Digesting::Begin)?;
        self.digests.send(Digesting::Bytes(Piece(Arc::new(head.clone()), 0..head.len())))?;
        self.parts.send(Part::Bytes(head))?;
        // The start of a record of which more comes.
        let mut held = Vec::new();
        let mut readable = true;
        loop {
            let mut bytes = self.memory();
            bytes.append(&mut held);
            match fill(&mut bytes, file, CHUNK) {
                Ok(0) => return Ok(Ok(self.parts.send(Part::Bytes(bytes))?)),
                Ok(_) if !readable => self.parts.send(Part::Bytes(bytes))?,
                Ok(_) => {
                    let bytes = Arc::new(bytes);
                    let whole;
                    (whole, readable) = self.cut(&bytes)?;
                    held.extend_from_slice(bytes.get(whole..).unwrap_or_default());
                    self.used.push_back(bytes);
                    if !readable {
                        self.parts.send(Part::Bytes(std::mem::take(&mut held)))?;
                    }
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Empty memory for a chunk.
    fn memory(&mut self) -> Vec<u8> {
        let free = self.used.pop_front_if(|oldest| Arc::strong_count(oldest) == 1).and_then(Arc::into_inner);
        let mut bytes = free.unwrap_or_default();
        bytes.clear();
        bytes
    }

    /// Has the whole records among the bytes prepared; gives where they end, and whether more bytes could make a record of
    /// what follows.
    fn cut(&self, bytes: &Arc<Vec<u8>>) -> Result<(usize, bool), Gone> {
        let mut start = 0;
        loop {
            let found = WholeRecords::of(bytes.get(start..).unwrap_or_default());
            let end = start + found.length;
            let piece = |range| Piece(Arc::clone(bytes), range);
            let mut content = None;
            let footer = start + found.footer.unwrap_or(found.length);
            self.digests.send(Digesting::Bytes(piece(start..footer)))?;
            if found.footer.is_some() {
                // The footer names the digest of what lies before it.
                let (tell, told) = sync_channel(1);
                self.digests.send(Digesting::Tell(tell))?;
                self.digests.send(Digesting::Bytes(piece(footer..end)))?;
                content = Some(told);
            }
            if found.length > 0 {
                let (done, prepared) = sync_channel(1);
                self.jobs.send(Job(piece(start..end), done))?;
                self.parts.send(Part::Records { prepared, bytes: found.length, content })?;
            }
            if found.footer.is_none() {
                return Ok((end, found.damage.is_none()));
            }
            start = end;
        }
    }
}

/// Reads on behind what there is, at most `length` bytes; gives how many.
fn fill(bytes: &mut Vec<u8>, file: &mut Box<dyn Read>, length: usize) -> io::Result<usize> {
    bytes.reserve(length);
    file.by_ref().take(length as u64).read_to_end(bytes)
}

/// The key that probably signed the seals that are read now. Nobody relies on it: a wrong one costs time.
type Probable = Mutex<Option<PublicKey>>;

fn prepare(waiting: &Mutex<Receiver<Job>>, probable: &Probable, how: impl Fn(Arc<Vec<u8>>, Range<usize>) -> Prepared) {
    loop {
        let job = locked(waiting).recv();
        let Ok(Job(Piece(bytes, range), done)) = job else { return };
        let key = *locked(probable);
        let (prepared, last) = how(bytes, range).with_seals(key);
        if last != key {
            *locked(probable) = last;
        }
        // Who waited may have seen enough.
        let _ = done.send(prepared);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digest(digesting: &Receiver<Digesting>) {
    let mut content = Sha256::new();
    for step in digesting {
        match step {
            Digesting::Begin => content = Sha256::new(),
            Digesting::Bytes(Piece(bytes, range)) => content.update(bytes.get(range).unwrap_or_default()),
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
    probable: &Probable,
    bar: &ProgressBar,
    mut sink: Option<&mut dyn FnMut(SealedEvent)>,
) -> Result<(), (PathBuf, io::Error)> {
    for part in coming {
        match part {
            _ if verifier.has_failed() => break,
            Part::Segment(name) => verifier.segment(name),
            Part::Bytes(bytes) => {
                match &mut sink {
                    Some(sink) => verifier.push(&bytes, sink),
                    None => verifier.push(&bytes, &mut |_| {}),
                }
                bar.inc(bytes.len() as u64);
            }
            Part::Records { prepared, bytes, content } => {
                // A thread that ends without an answer has panicked, and the scope passes that on.
                let Ok(mut prepared) = prepared.recv() else { break };
                if let Some(content) = content.and_then(|told| told.recv().ok()) {
                    prepared = prepared.after_content(content);
                }
                match &mut sink {
                    Some(sink) => verifier.push_prepared(prepared, sink),
                    None => verifier.push_unseen(prepared),
                }
                // In a log that does not begin with the opening of an epoch, this is where its key becomes known.
                let mut probable = locked(probable);
                *probable = probable.or_else(|| verifier.epoch_key());
                drop(probable);
                bar.inc(bytes as u64);
            }
            Part::Unreadable(what) => verifier.unreadable(what),
            Part::Failed(path, error) => return Err((path, error)),
        }
    }
    Ok(())
}
