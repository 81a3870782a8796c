use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const INTERVAL: Duration = Duration::from_secs(1);

/// Keeps a log line that somebody else can trigger down to one a second. What it leaves out is in the metrics.
#[derive(Debug, Default)]
pub(crate) struct Sometimes(Mutex<Option<Instant>>);

impl Sometimes {
    /// Whether a line is due now.
    pub(crate) fn now(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= INTERVAL);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gives_one_line() {
        let lines = Sometimes::default();
        assert_eq!((0..1000).filter(|_| lines.now()).count(), 1);
    }
}
