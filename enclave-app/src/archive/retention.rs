use std::time::Duration;

use serde::Deserialize;
use transcode_confidential::{fold::SnapshotPlace, time::Timestamp};

/// `[log]` of the measured configuration: when snapshots are taken, and what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogKeeping {
    /// A snapshot is taken after so many events.
    pub snapshot_events: u64,
    /// And after so many hours, where there was any event.
    pub snapshot_hours: u64,
    /// At least so many events are kept, whoever asks for pruning.
    pub keep_events: u64,
    /// At least the events of so many days are kept, whoever asks for pruning.
    pub keep_days: u64,
    /// Whether what need not be kept is pruned without being asked.
    pub prune: bool,
}

impl Default for LogKeeping {
    fn default() -> Self {
        Self { snapshot_events: 100_000, snapshot_hours: 24, keep_events: 1_000_000, keep_days: 400, prune: false }
    }
}

impl LogKeeping {
    pub(super) const fn snapshot_age(&self) -> Duration {
        Duration::from_secs(self.snapshot_hours.saturating_mul(3600))
    }

    /// Whether everything before a snapshot may be given up, in a log of so many events.
    pub(super) fn lets_go(&self, place: &SnapshotPlace, size: u64, now: Timestamp) -> bool {
        let days = Duration::from_secs(self.keep_days.saturating_mul(24 * 3600));
        size.saturating_sub(place.sequence.0) >= self.keep_events && now.since(place.time) >= days
    }
}

#[cfg(test)]
mod tests {
    use transcode_confidential::ids::Sequence;

    use super::*;

    #[test]
    fn what_is_too_young_or_too_near_the_end_is_kept() {
        let day = 24 * 3600;
        let keeping = LogKeeping { keep_events: 100, keep_days: 2, ..LogKeeping::default() };
        let place = SnapshotPlace { sequence: Sequence(50), time: Timestamp::from_secs(day) };
        for (size, now, lets_go) in
            [(150, 3, true), (149, 3, false), (150, 2, false), (1000, 1, false), (1000, 9, true)]
        {
            assert_eq!(keeping.lets_go(&place, size, Timestamp::from_secs(now * day)), lets_go, "{size} {now}");
        }
    }
}
