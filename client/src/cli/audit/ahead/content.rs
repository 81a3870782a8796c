use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, TryLockError, mpsc::SyncSender},
};

use sha2::{Digest as _, Sha256};
use transcode_confidential::ids::Digest;

use super::locked;

/// The digests of files, one after the other: a footer names that of what lies before it.
#[derive(Default)]
pub(super) struct Contents {
    steps: Mutex<VecDeque<Step>>,
    content: Mutex<Sha256>,
}

pub(super) enum Step {
    /// A file begins with these bytes.
    Begin(Vec<u8>),
    /// These of the bytes that were read follow.
    Bytes(Arc<Vec<u8>>, Range<usize>),
    /// The digest of what there is so far is wanted.
    Tell(SyncSender<Digest>),
}

impl Contents {
    /// Puts down what comes next. Whoever does so calls [`Contents::digest`] soon.
    pub(super) fn put(&self, step: Step) {
        locked(&self.steps).push_back(step);
    }

    /// Does all that was put down, unless another thread is at it: that one finds what has been put down meanwhile.
    pub(super) fn digest(&self) {
        loop {
            let mut content = match self.content.try_lock() {
                Ok(content) => content,
                Err(TryLockError::Poisoned(content)) => content.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            while let Some(step) = self.next() {
                match step {
                    Step::Begin(head) => *content = Sha256::new_with_prefix(head),
                    Step::Bytes(bytes, range) => content.update(bytes.get(range).unwrap_or_default()),
                    Step::Tell(tell) => {
                        // Who asked may have seen enough.
                        let _ = tell.send(Digest::new(content.clone().finalize().into()));
                    }
                }
            }
            drop(content);
            // Put down since the last look, by a thread that was sent away because this one was still at it.
            if locked(&self.steps).is_empty() {
                return;
            }
        }
    }

    fn next(&self) -> Option<Step> {
        locked(&self.steps).pop_front()
    }
}
