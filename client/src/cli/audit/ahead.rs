//! Verifying on every core: what needs no knowledge of the log is done ahead of the verifier.
//!
//! Whoever has nothing to do takes the next piece of the log: reads it and cuts it where records end, one at a time; then takes
//! it into the digest of its file, decodes its entries and hashes them. The caller's thread walks the chain over what is
//! prepared, in the order of the log, and prepares pieces like the others while nothing is ready for it. So there are no more
//! threads than cores, and none waits for another while there is work. The pieces under way are few, so memory does not grow
//! with the log.

mod content;
mod reader;
mod window;

use std::{
    io,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        mpsc::{Receiver, SyncSender, TryRecvError},
    },
    thread,
};

use indicatif::ProgressBar;
use transcode_confidential::{
    audit::{
        segment::SegmentName,
        verify::{LogVerifier, Prepared, SealedEvent},
    },
    ids::Digest,
    signature::PublicKey,
};

use self::{
    content::Contents,
    reader::{File, Reader},
    window::Window,
};

/// Hands segments to a verifier until they end or it has seen enough, and the events to `sink` if there is one.
///
/// # Errors
/// The file that cannot be read.
pub(super) fn verify<'a>(
    files: impl Iterator<Item = File<'a>> + Send,
    verifier: &mut LogVerifier,
    bar: &ProgressBar,
    sink: Option<&mut dyn FnMut(SealedEvent)>,
) -> Result<(), (PathBuf, io::Error)> {
    let workshop = Workshop {
        reader: Mutex::new(Reader::new(files)),
        window: Window::default(),
        contents: Contents::default(),
        probable: Mutex::new(None),
        prepare: if sink.is_some() { Prepared::events } else { Prepared::unseen },
    };
    thread::scope(|scope| {
        for _ in 1..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| workshop.help());
        }
        let walked = walk(&workshop, verifier, bar, sink);
        workshop.window.close();
        walked
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

/// Whole records to be prepared.
struct Job {
    /// These of the bytes that were read.
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
    done: SyncSender<Prepared>,
}

/// What all threads share.
struct Workshop<I> {
    reader: Mutex<Reader<I>>,
    window: Window,
    contents: Contents,
    /// The key that probably signed the seals that are read now. Nobody relies on it: a wrong one costs time.
    probable: Mutex<Option<PublicKey>>,
    prepare: fn(Arc<Vec<u8>>, Range<usize>) -> Prepared,
}

impl<'a, I: Iterator<Item = File<'a>>> Workshop<I> {
    /// Prepares pieces until there are no more, or nobody wants them.
    fn help(&self) {
        loop {
            let mut reader = locked(&self.reader);
            // Who reads waits for room; the others wait for him. What was cut already may be just what the verifier waits for.
            if !reader.has_jobs() && !self.window.await_room() {
                return;
            }
            let job = reader.next(&self.window, &self.contents);
            drop(reader);
            if let Some(job) = job {
                self.process(job);
            }
        }
    }

    /// Prepares one piece, if there is one to be had at once.
    fn help_once(&self) -> bool {
        let mut reader = match self.reader.try_lock() {
            Ok(reader) => reader,
            Err(TryLockError::Poisoned(reader)) => reader.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if !reader.has_jobs() && !self.window.has_room() {
            return false;
        }
        let job = reader.next(&self.window, &self.contents);
        drop(reader);
        job.map(|job| self.process(job)).is_some()
    }

    fn process(&self, Job { bytes, range, done }: Job) {
        self.contents.digest();
        let key = *locked(&self.probable);
        let (prepared, last) = (self.prepare)(bytes, range).with_seals(key);
        if last != key {
            *locked(&self.probable) = last;
        }
        // Who waited may have seen enough.
        let _ = done.send(prepared);
    }

    /// What another thread will give, or has given; meanwhile prepares what comes behind. `None` where it ended without an
    /// answer: it has panicked, and the scope passes that on.
    fn answer<T>(&self, coming: &Receiver<T>) -> Option<T> {
        loop {
            match coming.try_recv() {
                Ok(answer) => return Some(answer),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if self.help_once() => {}
                Err(TryRecvError::Empty) => return coming.recv().ok(),
            }
        }
    }

    fn next_part(&self) -> Option<Part> {
        loop {
            if let Some(part) = self.window.take() {
                return Some(part);
            }
            if !self.help_once() {
                return self.window.await_part();
            }
        }
    }
}

/// The caller's thread.
fn walk<'a, I: Iterator<Item = File<'a>>>(
    workshop: &Workshop<I>,
    verifier: &mut LogVerifier,
    bar: &ProgressBar,
    mut sink: Option<&mut dyn FnMut(SealedEvent)>,
) -> Result<(), (PathBuf, io::Error)> {
    while !verifier.has_failed()
        && let Some(part) = workshop.next_part()
    {
        match part {
            Part::Segment(name) => verifier.segment(name),
            Part::Bytes(bytes) => {
                match &mut sink {
                    Some(sink) => verifier.push(&bytes, sink),
                    None => verifier.push(&bytes, &mut |_| {}),
                }
                bar.inc(bytes.len() as u64);
            }
            Part::Records { prepared, bytes, content } => {
                let Some(mut prepared) = workshop.answer(&prepared) else { break };
                if let Some(content) = content.and_then(|content| workshop.answer(&content)) {
                    prepared = prepared.after_content(content);
                }
                match &mut sink {
                    Some(sink) => verifier.push_prepared(prepared, sink),
                    None => verifier.push_unseen(prepared),
                }
                // In a log that does not begin with the opening of an epoch, this is where its key becomes known.
                let mut probable = locked(&workshop.probable);
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
