//! The enclave's one clock: the NSM's time, carried forward by `CLOCK_BOOTTIME`.
//!
//! The host can set the clock of the kernel, and pause the whole machine, but it can neither forge an NSM timestamp nor stop
//! `CLOCK_BOOTTIME` from counting what it has seen. Time given out never goes back. TLS, request signatures, rotation,
//! policy and events all read this clock.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use transcode_confidential::time::{Clock, Timestamp};

/// A call to the NSM that took longer than this says too little about when its timestamp was taken.
pub const SLOWEST_ANCHOR: Duration = Duration::from_secs(1);
/// More drift than this between two anchors is recorded and stops grants until the next anchor.
pub const DRIFT_LIMIT: Duration = Duration::from_secs(2);

/// Time since boot, time spent suspended included.
pub trait Boottime: Send + Sync {
    /// The time now. Never goes back.
    fn boottime(&self) -> Duration;
}

/// `CLOCK_BOOTTIME` of the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelBoottime;

impl Boottime for KernelBoottime {
    fn boottime(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        let secs = u64::try_from(now.tv_sec).unwrap_or_default();
        Duration::new(secs, u32::try_from(now.tv_nsec).unwrap_or_default())
    }
}

/// The clock. Shows the Unix epoch until it is anchored for the first time.
pub struct EnclaveClock {
    boottime: Arc<dyn Boottime>,
    anchor: Mutex<Option<Anchor>>,
    last: AtomicU64,
    drifted: AtomicU64,
    drift_ms: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    nsm: Timestamp,
    at: Duration,
}

/// What became of an attempt to anchor the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchoring {
    /// The clock now follows this timestamp.
    Anchored,
    /// The call was too slow; the clock goes on as before.
    TooSlow {
        /// How long it took.
        took: Duration,
    },
    /// The clock now follows this timestamp, which was further from it than [`DRIFT_LIMIT`]. Time still does not go back.
    Drifted {
        /// Milliseconds that the clock was ahead; negative where it was behind.
        ahead_ms: i64,
    },
}

impl EnclaveClock {
    /// A clock that is not anchored yet.
    pub fn new(boottime: Arc<dyn Boottime>) -> Self {
        Self {
            boottime,
            anchor: Mutex::new(None),
            last: AtomicU64::new(0),
            drifted: AtomicU64::new(0),
            drift_ms: AtomicU64::new(0),
        }
    }

    /// Reads the underlying time, for the moments before and after a call to the NSM.
    pub fn boottime(&self) -> Duration {
        self.boottime.boottime()
    }

    /// Anchors the clock at `nsm`, which the NSM stamped between the boot times `before` and `after`.
    pub fn anchor(&self, before: Duration, after: Duration, nsm: Timestamp) -> Anchoring {
        let took = after.saturating_sub(before);
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        if took > SLOWEST_ANCHOR && anchor.is_some() {
            return Anchoring::TooSlow { took };
        }
        let at = before + took / 2;
        let ahead_ms = anchor.map_or(0, |old| signed_millis(old.carried_to(at), nsm));
        *anchor = Some(Anchor { nsm, at });
        self.drift_ms.store(ahead_ms.unsigned_abs(), Ordering::Relaxed);
        let drifted = ahead_ms.unsigned_abs() > u64::try_from(DRIFT_LIMIT.as_millis()).unwrap_or(u64::MAX);
        self.drifted.store(u64::from(drifted), Ordering::Release);
        if drifted { Anchoring::Drifted { ahead_ms } } else { Anchoring::Anchored }
    }

    /// How far the clock was off when it was last anchored, forth or back.
    pub fn last_drift(&self) -> Duration {
        Duration::from_millis(self.drift_ms.load(Ordering::Relaxed))
    }

    /// Time since the clock was last anchored; zero where it never was.
    pub fn anchor_age(&self) -> Duration {
        let anchor = *self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        anchor.map_or(Duration::ZERO, |anchor| self.boottime().saturating_sub(anchor.at))
    }

    /// Whether the last anchor found the clock further off than [`DRIFT_LIMIT`]: nothing is granted then.
    pub fn has_drifted(&self) -> bool {
        self.drifted.load(Ordering::Acquire) != 0
    }
}

impl Clock for EnclaveClock {
    fn now(&self) -> Timestamp {
        let anchor = *self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let now = anchor.map_or(Timestamp(0), |anchor| anchor.carried_to(self.boottime()));
        Timestamp(self.last.fetch_max(now.0, Ordering::AcqRel).max(now.0))
    }
}

impl std::fmt::Debug for EnclaveClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EnclaveClock({})", self.now())
    }
}

impl Anchor {
    fn carried_to(self, boottime: Duration) -> Timestamp {
        if boottime >= self.at { self.nsm.plus(boottime - self.at) } else { self.nsm.minus(self.at - boottime) }
    }
}

fn signed_millis(clock: Timestamp, nsm: Timestamp) -> i64 {
    let magnitude = i64::try_from(clock.0.abs_diff(nsm.0)).unwrap_or(i64::MAX);
    if clock >= nsm { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Scripted(AtomicU64);

    impl Boottime for Scripted {
        fn boottime(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    fn clock() -> (Arc<Scripted>, EnclaveClock) {
        let boottime = Arc::new(Scripted::default());
        (Arc::clone(&boottime), EnclaveClock::new(boottime))
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn time_is_the_anchor_carried_forward_from_the_middle_of_the_call() {
        let (boottime, clock) = clock();
        assert_eq!(clock.now(), Timestamp(0));
        assert_eq!(clock.anchor(ms(100), ms(300), Timestamp(1_000_000)), Anchoring::Anchored);
        boottime.0.store(1200, Ordering::Relaxed);
        assert_eq!(clock.now(), Timestamp(1_001_000));
    }

    #[test]
    fn a_slow_call_does_not_anchor_again() {
        let (boottime, clock) = clock();
        clock.anchor(ms(0), ms(0), Timestamp(1_000_000));
        boottime.0.store(5000, Ordering::Relaxed);
        assert_eq!(clock.anchor(ms(5000), ms(6001), Timestamp(9_000_000)), Anchoring::TooSlow { took: ms(1001) });
        assert_eq!(clock.now(), Timestamp(1_005_000));
    }

    #[test]
    fn drift_is_told_stops_grants_and_never_takes_time_back() {
        let (boottime, clock) = clock();
        clock.anchor(ms(0), ms(0), Timestamp(1_000_000));
        boottime.0.store(10_000, Ordering::Relaxed);
        assert_eq!(clock.now(), Timestamp(1_010_000));
        assert_eq!(clock.anchor(ms(10_000), ms(10_000), Timestamp(1_005_000)), Anchoring::Drifted { ahead_ms: 5000 });
        assert!(clock.has_drifted());
        assert_eq!((clock.last_drift(), clock.anchor_age()), (ms(5000), ms(0)));
        assert_eq!(clock.now(), Timestamp(1_010_000), "time stands still until the anchor has caught up");
        boottime.0.store(17_000, Ordering::Relaxed);
        assert_eq!(clock.now(), Timestamp(1_012_000));
        assert_eq!(clock.anchor(ms(17_000), ms(17_000), Timestamp(1_012_001)), Anchoring::Anchored);
        assert!(!clock.has_drifted());
        assert_eq!((clock.last_drift(), clock.anchor_age()), (ms(1), ms(0)));
    }

    #[test]
    fn a_machine_that_was_paused_is_found_behind() {
        let (boottime, clock) = clock();
        clock.anchor(ms(0), ms(0), Timestamp(1_000_000));
        boottime.0.store(1000, Ordering::Relaxed);
        assert_eq!(clock.anchor(ms(1000), ms(1000), Timestamp(4_600_000)), Anchoring::Drifted { ahead_ms: -3_599_000 });
        assert_eq!(clock.now(), Timestamp(4_600_000));
    }
}
