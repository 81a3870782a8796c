//! What the enclave counts: numbers without names, for whoever watches the deployment.
//!
//! The names, labels and label values are those of the [`CATALOGUE`], compiled in; whatever is not among them is counted as
//! `other`. So a figure can say that a key was used, and never which, by whom or for what. The parent is sent a report every
//! few seconds ([`Reporter`]); it can drop or delay one, and change nothing here by it.

mod reporter;

pub use reporter::Reporter;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use transcode_confidential::protocol::metrics::{BOUNDS, CATALOGUE, Metric, Report, Series, Shape};

/// Every number of the catalogue.
pub struct Metrics {
    /// For each family, its series one after the other.
    families: Vec<Box<[AtomicU64]>>,
    started: Instant,
}

impl Default for Metrics {
    fn default() -> Self {
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        let families = CATALOGUE.iter().map(|family| zeros(family.series() * family.width())).collect();
        Self { families, started: Instant::now() }
    }
}

impl Metrics {
    /// Counts one. Label values that the catalogue does not have count as `other`.
    pub fn count(&self, metric: Metric, labels: &[&str]) {
        self.add(metric, labels, 1);
    }

    /// Counts some.
    pub fn add(&self, metric: Metric, labels: &[&str], count: u64) {
        if let Some([value]) = self.series(metric, labels) {
            value.fetch_add(count, Relaxed);
        }
    }

    /// Sets a gauge, in its unit on the wire.
    pub fn set(&self, metric: Metric, labels: &[&str], value: u64) {
        if let Some([cell]) = self.series(metric, labels) {
            cell.store(value, Relaxed);
        }
    }

    /// Sets a gauge of seconds.
    pub fn set_seconds(&self, metric: Metric, duration: Duration) {
        self.set(metric, &[], u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    /// One more in a gauge, until the guard is dropped.
    pub fn hold(self: &Arc<Self>, metric: Metric, label: &'static str) -> Held {
        self.add(metric, &[label], 1);
        Held { metrics: Arc::clone(self), metric, label }
    }

    /// Takes in how long something took.
    pub fn observe(&self, metric: Metric, labels: &[&str], took: Duration) {
        let Some(series) = self.series(metric, labels) else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        if let (Some(bucket), Some(sum)) = (series.get(bucket), series.last()) {
            bucket.fetch_add(1, Relaxed);
            sum.fetch_add(micros, Relaxed);
        }
    }

    /// Time since these numbers began.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// All that is not zero.
    pub fn report(&self) -> Report {
        let series = CATALOGUE.iter().zip(&self.families).enumerate().flat_map(|(family, (known, cells))| {
            cells.chunks(known.width()).enumerate().map(move |(position, cells)| Series {
                family,
                position,
                values: cells.iter().map(|cell| cell.load(Relaxed)).collect(),
            })
        });
        Report::new(series.collect())
    }

    /// The numbers of one series.
    fn series(&self, metric: Metric, labels: &[&str]) -> Option<&[AtomicU64]> {
        let family = CATALOGUE.get(metric as usize)?;
        debug_assert!(family.shape == Shape::Histogram || family.width() == 1, "one number");
        let start = family.position(labels) * family.width();
        self.families.get(metric as usize)?.get(start..start + family.width())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// One in a gauge.
#[derive(Debug)]
pub struct Held {
    metrics: Arc<Metrics>,
    metric: Metric,
    label: &'static str,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some([cell]) = self.metrics.series(self.metric, &[self.label]) {
            cell.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(metrics: &Metrics) -> String {
        let mut text = String::new();
        Report::decode(&metrics.report().encode()).unwrap().expose(&mut text);
        text
    }

    #[test]
    fn what_is_counted_is_what_is_told() {
        let metrics = Arc::new(Metrics::default());
        metrics.count(Metric::Requests, &["GET /v1/keys", "OK"]);
        metrics.count(Metric::Requests, &["GET /v1/keys", "OK"]);
        metrics.observe(Metric::KmsSeconds, &["Decrypt"], Duration::from_millis(30));
        metrics.observe(Metric::KmsSeconds, &["Decrypt"], Duration::from_secs(60));
        metrics.set_seconds(Metric::CredentialsRemaining, Duration::from_millis(2500));
        let held = metrics.hold(Metric::ConnectionsOpen, "shown");
        let text = exposed(&metrics);
        for line in [
            "transcode_enclave_requests_total{route=\"GET /v1/keys\",code=\"OK\"} 2",
            "transcode_enclave_kms_call_seconds_bucket{operation=\"Decrypt\",le=\"0.025\"} 0",
            "transcode_enclave_kms_call_seconds_bucket{operation=\"Decrypt\",le=\"0.05\"} 1",
            "transcode_enclave_kms_call_seconds_bucket{operation=\"Decrypt\",le=\"10\"} 1",
            "transcode_enclave_kms_call_seconds_bucket{operation=\"Decrypt\",le=\"+Inf\"} 2",
            "transcode_enclave_kms_call_seconds_sum{operation=\"Decrypt\"} 60.03",
            "transcode_enclave_credentials_remaining_seconds 2.5",
            "transcode_enclave_connections_open{certificate=\"shown\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        drop(held);
        assert!(exposed(&metrics).contains("transcode_enclave_connections_open{certificate=\"shown\"} 0\n"));
    }

    #[test]
    fn a_name_that_a_caller_chose_is_counted_and_never_told() {
        let metrics = Metrics::default();
        metrics.count(Metric::Requests, &["GET /v1/keys/secret-film", "secret-code"]);
        metrics.count(Metric::Refusals, &["secret-principal"]);
        let bytes = metrics.report().encode();
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
        let text = exposed(&metrics);
        assert!(
            !text.contains("secret") && text.contains("requests_total{route=\"other\",code=\"other\"} 1"),
            "{text}"
        );
    }
}
