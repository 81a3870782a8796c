use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Failures of one cause that are recorded one by one.
const BURST: u32 = 10;
/// After those, one for each such time.
const INTERVAL: Duration = Duration::from_secs(10);

/// Keeps failures that callers can bring about again and again from filling the log: of each cause the first few are recorded,
/// then one an interval, which says how many there were beside it.
#[derive(Debug, Default)]
pub(super) struct FailureMeter(Mutex<BTreeMap<&'static str, Counted>>);

#[derive(Debug)]
struct Counted {
    recorded: u32,
    last: Instant,
    left_out: u64,
}

impl FailureMeter {
    /// Whether this one is recorded, and then how many before it were not.
    pub(super) fn record(&self, cause: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut causes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = causes.entry(cause).or_insert(Counted { recorded: 0, last: now, left_out: 0 });
        let regained = now.duration_since(counted.last).as_secs() / INTERVAL.as_secs();
        counted.recorded = counted.recorded.saturating_sub(u32::try_from(regained).unwrap_or(u32::MAX));
        if counted.recorded >= BURST {
            counted.left_out += 1;
            return None;
        }
        counted.recorded += 1;
        counted.last = now;
        Some(std::mem::take(&mut counted.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_failures_become_few_events_that_say_how_many_they_stand_for() {
        let meter = FailureMeter::default();
        for _ in 0..BURST {
            assert_eq!(meter.record("throttled"), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(meter.record("throttled"), None);
        }
        assert_eq!(meter.record("other"), Some(0), "each cause by itself");
        tokio::time::advance(INTERVAL).await;
        assert_eq!(meter.record("throttled"), Some(1000));
        assert_eq!(meter.record("throttled"), None);
    }
}
