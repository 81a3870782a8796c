use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use transcode_confidential::time::{Clock, SystemClock, Timestamp};

/// The system's clock, moved by an offset that tests change.
#[derive(Debug, Clone, Default)]
pub struct TestClock {
    offset_ms: Arc<AtomicI64>,
}

impl TestClock {
    /// Shows `time` now.
    pub fn starting_at(time: Timestamp) -> Self {
        let clock = Self::default();
        let offset = i128::from(time.0) - i128::from(SystemClock.now().0);
        clock.offset_ms.store(offset as i64, Ordering::SeqCst);
        clock
    }

    /// Goes forward.
    pub fn advance(&self, by: Duration) {
        self.offset_ms.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }

    /// Goes back.
    pub fn go_back(&self, by: Duration) {
        self.offset_ms.fetch_sub(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0.saturating_add_signed(self.offset_ms.load(Ordering::SeqCst)))
    }
}
