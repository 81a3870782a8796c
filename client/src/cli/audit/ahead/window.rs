use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
};

use super::{Part, locked};

/// Parts that may wait for the verifier before no more is read.
const PARTS: usize = 16;

/// What waits for the verifier, in the order of the log.
#[derive(Default)]
pub(super) struct Window {
    parts: Mutex<Parts>,
    /// A part came, or the last one has come.
    came: Condvar,
    /// A part was taken, or nobody takes any more.
    went: Condvar,
}

#[derive(Default)]
struct Parts {
    waiting: VecDeque<Part>,
    /// No more come, or nobody takes them.
    closed: bool,
}

impl Window {
    /// Behind all others.
    pub(super) fn put(&self, part: Part) {
        locked(&self.parts).waiting.push_back(part);
        self.came.notify_one();
    }

    /// The first, if there is one.
    pub(super) fn take(&self) -> Option<Part> {
        let part = locked(&self.parts).waiting.pop_front();
        if part.is_some() {
            self.went.notify_one();
        }
        part
    }

    /// The first, when it has come; `None` where no more come.
    pub(super) fn await_part(&self) -> Option<Part> {
        let none = |parts: &mut Parts| parts.waiting.is_empty() && !parts.closed;
        let parts = self.came.wait_while(locked(&self.parts), none);
        let part = parts.unwrap_or_else(PoisonError::into_inner).waiting.pop_front();
        self.went.notify_one();
        part
    }

    /// Whether more may be read now.
    pub(super) fn has_room(&self) -> bool {
        locked(&self.parts).has_room()
    }

    /// Waits until more may be read; `false` where no more should.
    pub(super) fn await_room(&self) -> bool {
        let parts = self.went.wait_while(locked(&self.parts), |parts| !parts.has_room() && !parts.closed);
        !parts.unwrap_or_else(PoisonError::into_inner).closed
    }

    /// No more parts come, or nobody takes them any more.
    pub(super) fn close(&self) {
        locked(&self.parts).closed = true;
        self.came.notify_all();
        self.went.notify_all();
    }
}

impl Parts {
    fn has_room(&self) -> bool {
        self.waiting.len() < PARTS && !self.closed
    }
}
