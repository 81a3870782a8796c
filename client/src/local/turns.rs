use std::{
    io::Write,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest as _, Sha256};
use transcode_confidential::ids::Digest;

use crate::error::ContentError;

/// An output that blocks are written to in the order of their numbers, whoever comes first. After a failure nothing more is
/// written: what was is a beginning.
pub(super) struct Turns<W> {
    state: Mutex<State<W>>,
    changed: Condvar,
}

struct State<W> {
    output: W,
    next: u64,
    bytes: u64,
    hash: Option<Sha256>,
    failed: Option<ContentError>,
    ended: bool,
}

impl<W: Write> Turns<W> {
    /// Writes what precedes all blocks.
    pub(super) fn begin(mut output: W, head: &[u8], digest: bool) -> Result<Self, ContentError> {
        output.write_all(head).map_err(ContentError::Output)?;
        let mut hash = digest.then(Sha256::new);
        if let Some(hash) = &mut hash {
            hash.update(head);
        }
        let state = State { output, next: 0, bytes: head.len() as u64, hash, failed: None, ended: false };
        Ok(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Writes block `number` when it is its turn. `false` where somebody failed, so that there are no more turns.
    pub(super) fn write<'a>(&self, number: u64, parts: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut state = self.state();
        while state.next != number && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.ended {
            return false;
        }
        for part in parts {
            if let Err(error) = state.output.write_all(part) {
                drop(state);
                self.fail(ContentError::Output(error));
                return false;
            }
            state.bytes += part.len() as u64;
            if let Some(hash) = &mut state.hash {
                hash.update(part);
            }
        }
        state.next += 1;
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Ends all turns; the first to fail is heard.
    pub(super) fn fail(&self, error: ContentError) {
        let mut state = self.state();
        state.failed.get_or_insert(error);
        state.ended = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Bytes written and their digest, where nobody failed.
    pub(super) fn finish(self) -> Result<(u64, Option<Digest>), ContentError> {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.failed {
            return Err(error);
        }
        state.output.flush().map_err(ContentError::Output)?;
        Ok((state.bytes, state.hash.map(super::finished)))
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
