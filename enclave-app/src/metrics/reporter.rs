use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    keys::{KeyState, RotationNeed},
    protocol::{host::Request, metrics::Metric},
};

use super::Metrics;
use crate::{custody::Custody, grants::Grants, host::CurrentLink, ledger::RefusalMeter, nsm::Priority};

/// How often the parent is told.
const EVERY: Duration = Duration::from_secs(5);

/// Reads the gauges and sends the parent a report, every few seconds. It holds nothing up: a report that cannot be sent is
/// dropped, and the next one says it all again.
#[derive(Clone)]
pub struct Reporter {
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// Keys, log, KMS, clock.
    pub custody: Arc<Custody>,
    /// The policy in force.
    pub grants: Arc<Grants>,
    /// Counted refusals.
    pub refusals: Arc<RefusalMeter>,
    /// The parent.
    pub link: CurrentLink,
}

impl Reporter {
    /// Reports until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut behind_since = None;
        let reporting = async {
            loop {
                ticks.tick().await;
                self.read_gauges(&mut behind_since);
                let report = Request::Metrics(self.metrics.report().encode());
                if let Err(error) = self.link.call(report).await {
                    tracing::debug!(%error, "the parent took no figures");
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = reporting => {}
        }
    }

    fn read_gauges(&self, behind_since: &mut Option<(u64, Instant)>) {
        let Self { metrics, custody, .. } = self;
        let set = |metric, value: u64| metrics.set(metric, &[], value);
        let ledger = &custody.ledger;
        let (persisted, placed) = (ledger.persisted().size, ledger.placed_size());
        // The first look at which something was not durable that still is not.
        *behind_since = match *behind_since {
            _ if persisted >= placed => None,
            Some((size, since)) if persisted < size => Some((size, since)),
            _ => Some((placed, Instant::now())),
        };
        set(Metric::LogPlaced, placed);
        set(Metric::LogPersisted, persisted);
        metrics.set_seconds(Metric::LogBehind, behind_since.map_or(Duration::ZERO, |(_, since)| since.elapsed()));
        let (backlog, limit) = ledger.backlog();
        set(Metric::LogBacklog, backlog);
        set(Metric::LogBacklogLimit, limit);
        set(Metric::LogAvailable, ledger.is_available().into());
        set(Metric::RefusalsWaiting, self.refusals.waiting());

        set(Metric::Epoch, custody.epoch.0);
        metrics.set_seconds(Metric::Uptime, metrics.uptime());
        set(Metric::PolicyVersion, self.grants.version());
        let (states, due) = ledger.with_keys(|keys, now| {
            let mut states = [0_u64; 4];
            for (_, key) in keys.iter() {
                if let Some(count) = states.get_mut(key.state as usize) {
                    *count += 1;
                }
            }
            (states, keys.needing(RotationNeed::Due, now).count() as u64)
        });
        for (state, name) in [
            (KeyState::Active, "active"),
            (KeyState::Suspended, "suspended"),
            (KeyState::Revoked, "revoked"),
            (KeyState::Destroyed, "destroyed"),
        ] {
            metrics.set(Metric::Keys, &[name], states.get(state as usize).copied().unwrap_or_default());
        }
        set(Metric::RotationsDue, due);

        metrics.set_seconds(Metric::CredentialsRemaining, custody.kms.credentials_remaining());
        for priority in [Priority::Kms, Priority::Epoch, Priority::Client] {
            metrics.set(Metric::NsmWaiting, &[priority.name()], custody.attestor.waiting(priority));
        }
        metrics.set_seconds(Metric::ClockDrift, custody.clock.last_drift());
        set(Metric::ClockDrifted, custody.clock.has_drifted().into());
        metrics.set_seconds(Metric::ClockAnchorAge, custody.clock.anchor_age());
        set(Metric::MemoryResident, resident_bytes());
        set(Metric::FilesOpen, open_files());
    }
}

/// Resident memory as the kernel counts it; 0 where `/proc` is not mounted.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

/// Open file descriptors, the one for reading their list included; 0 where `/proc` is not mounted.
fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_files_are_those_of_this_process() {
        assert!((1 << 20..1 << 36).contains(&resident_bytes()), "{}", resident_bytes());
        let before = open_files();
        let _more: Vec<_> = (0..50).map(|_| std::fs::File::open("/proc/self/status").unwrap()).collect();
        assert!(open_files() >= before.max(3));
    }
}
