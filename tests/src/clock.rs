//! Clocks that a test moves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use transcode_confidential::time::{Clock, SystemClock, Timestamp};

/// Stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Stands at that time.
    pub const fn at(time: Timestamp) -> Self {
        Self(AtomicU64::new(time.0))
    }

    /// Moves forward.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().plus(by));
    }

    /// Moves anywhere, also back.
    pub fn set(&self, time: Timestamp) {
        self.0.store(time.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Goes as the system's clock does, and jumps when a test says so.
#[derive(Debug, Clone, Default)]
pub struct JumpingClock(Arc<AtomicI64>);

impl JumpingClock {
    /// Is so many seconds ahead of the system's from now on, or behind it.
    pub fn jump_to(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for JumpingClock {
    fn now(&self) -> Timestamp {
        let shift = self.0.load(Ordering::SeqCst).saturating_mul(1000);
        Timestamp(SystemClock.now().0.saturating_add_signed(shift))
    }
}
