//! Content on this machine's own cores: an enclave issues or unwraps the data key of a message, the content stays here.
//!
//! The messages are the same as those that an enclave writes and reads. [`encrypt_local`](crate::Client::encrypt_local) and
//! [`decrypt_local`](crate::Client::decrypt_local) do all of it; [`encrypt`] and [`decrypt`] are the work alone, for those who ask for the data
//! keys of many messages at once ([`issue_data_keys`](crate::Client::issue_data_keys), [`unwrap_data_keys`](crate::Client::unwrap_data_keys)).
//!
//! ```no_run
//! # async fn example(client: client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use std::fs::File;
//! use client::{EncryptRequest, local::LocalOptions};
//!
//! let request = EncryptRequest { key: "content-key-1".parse()?, context: Default::default(), content_id: None };
//! let (input, output) = (File::open("film.mxf")?, File::create("film.mxf.tce")?);
//! let (done, _) = client.encrypt_local(&request, &LocalOptions::default(), input, output).await?;
//! println!("on the record as event {}", done.receipt.sequence);
//! # Ok(()) }
//! ```
//!
//! | who | learns |
//! |---|---|
//! | this machine | the data key of this one message, which opens no other; the content it has anyway |
//! | the enclave | that a data key was issued, for which key, context and content; not how many bytes, unless it is reported |

mod calls;
mod decrypt;
mod encrypt;
#[cfg(test)]
mod tests;
mod turns;

use std::{
    io::{self, IoSliceMut, Read},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sha2::{Digest as _, Sha256};
use transcode_confidential::{ids::Digest, message::FrameLength};

pub(crate) use calls::{blocking, wanted_keys};
pub use {
    decrypt::{SealedInput, decrypt},
    encrypt::encrypt,
};

use crate::error::ContentError;

/// How content is worked on.
#[derive(Clone)]
pub struct LocalOptions {
    /// Threads for one message; as many as there are cores, unless said otherwise.
    pub threads: NonZeroUsize,
    /// Frame length of what is written.
    pub frame_length: FrameLength,
    /// Whether to compute SHA-256 of input and output, which is slower than the cipher.
    pub digests: bool,
    /// Called with the number of bytes whenever some were read.
    pub progress: Arc<dyn Fn(u64) + Send + Sync>,
    /// Set by whoever wants the work to stop.
    pub stop: Arc<AtomicBool>,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            frame_length: FrameLength::DEFAULT,
            digests: false,
            progress: Arc::new(|_| {}),
            stop: Arc::default(),
        }
    }
}

impl std::fmt::Debug for LocalOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalOptions")
            .field("threads", &self.threads)
            .field("frame_length", &self.frame_length)
            .field("digests", &self.digests)
            .finish_non_exhaustive()
    }
}

/// What went through, after all of it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalDone {
    /// Frames of the message.
    pub frames: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// SHA-256 of what was read and of what was written, where that was wanted.
    pub digests: Option<(Digest, Digest)>,
}

/// About so many bytes are worked on at once by each thread: few enough to stay in its cache between reading and writing.
const BLOCK: usize = 1 << 18;
/// Frames of a block at most: few enough for one system call.
const BLOCK_FRAMES: usize = 256;

/// How many frames make a block.
fn frames_in_block(frame_length: FrameLength) -> usize {
    (BLOCK / frame_length.as_usize()).clamp(2, BLOCK_FRAMES)
}

/// An input that is counted, watched, and hashed where that is wanted.
struct Input<R> {
    inner: R,
    bytes: u64,
    hash: Option<Sha256>,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
    stop: Arc<AtomicBool>,
}

impl<R: Read> Input<R> {
    fn new(inner: R, options: &LocalOptions) -> Self {
        let LocalOptions { progress, stop, .. } = options;
        let hash = options.digests.then(Sha256::new);
        Self { inner, bytes: 0, hash, progress: Arc::clone(progress), stop: Arc::clone(stop) }
    }

    /// Reads once, into as much of the room as there is input for. 0 is the end.
    fn read(&mut self, room: &mut [IoSliceMut<'_>]) -> Result<usize, ContentError> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(ContentError::Stopped);
            }
            match self.inner.read_vectored(room) {
                Ok(length) => {
                    self.took(length, room);
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ContentError::Input(error)),
            }
        }
    }

    /// Counts what was read before.
    fn took_before(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        (self.progress)(bytes.len() as u64);
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
    }

    fn took(&mut self, length: usize, room: &[IoSliceMut<'_>]) {
        self.bytes += length as u64;
        (self.progress)(length as u64);
        let Some(hash) = &mut self.hash else { return };
        let mut left = length;
        for part in room {
            let part = part.get(..left.min(part.len())).unwrap_or_default();
            hash.update(part);
            left -= part.len();
        }
    }

    fn digest(self) -> Option<Digest> {
        self.hash.map(finished)
    }
}

fn finished(hash: Sha256) -> Digest {
    Digest::new(hash.finalize().into())
}
