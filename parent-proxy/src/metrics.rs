//! What the proxy counts. One struct, atomics, the Prometheus text format.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Upper bounds of the sync histogram, in microseconds.
const BOUNDS: [u64; 10] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// Which version this is, as Prometheus likes to be told.
const BUILD: &str = concat!(
    "# HELP transcode_proxy_build_info The version, as a label.\n# TYPE transcode_proxy_build_info gauge\n",
    "transcode_proxy_build_info{version=\"",
    env!("CARGO_PKG_VERSION"),
    "\"} 1\n"
);

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that comes and goes.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// How long something took, in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident,)+) => {
        /// Everything that the proxy counts. The field's name with the prefix `transcode_proxy_` is the metric's.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $help])+ pub $name: $kind,)+
            /// This process.
            pub(crate) process: Process,
        }

        impl Metrics {
            /// The Prometheus text exposition format, version 0.0.4.
            pub fn render(&self) -> String {
                let mut out = String::from(BUILD);
                $(self.$name.render(concat!("transcode_proxy_", stringify!($name)), concat!($($help),+), &mut out);)+
                out
            }
        }
    };
}

metrics! {
    /// Client connections that were accepted.
    relay_accepted_total: Counter,
    /// Client connections that are open.
    relay_open: Gauge,
    /// Client connections refused because one address had too many.
    relay_refused_total: Counter,
    /// Client connections that ended because the enclave could not be reached.
    relay_unreachable_total: Counter,
    /// Time that it took to connect to the enclave, in seconds.
    relay_connect_seconds: Histogram,
    /// Client connections ended by a deadline.
    relay_timed_out_total: Counter,
    /// Client connections ended by an error.
    relay_failed_total: Counter,
    /// Bytes from clients to the enclave.
    relay_in_bytes_total: Counter,
    /// Bytes from the enclave to clients.
    relay_out_bytes_total: Counter,
    /// Connections that the enclave opened to the world.
    egress_accepted_total: Counter,
    /// Egress connections that are open.
    egress_open: Gauge,
    /// Egress connections to a target that is not allowed.
    egress_refused_total: Counter,
    /// Egress connections whose target could not be reached.
    egress_unreachable_total: Counter,
    /// Egress connections that did not say where to.
    egress_malformed_total: Counter,
    /// Egress connections ended by a deadline.
    egress_timed_out_total: Counter,
    /// Egress connections ended by an error.
    egress_failed_total: Counter,
    /// Bytes that the enclave sent through egress.
    egress_out_bytes_total: Counter,
    /// Bytes that the enclave received through egress.
    egress_in_bytes_total: Counter,
    /// Sessions of the host protocol that began.
    host_sessions_total: Counter,
    /// Whether a session is alive.
    host_session_alive: Gauge,
    /// Sessions refused because another was alive.
    host_fenced_total: Counter,
    /// Connections closed because of a malformed frame or a request out of place.
    host_malformed_total: Counter,
    /// Peers that were not the configured enclave.
    host_foreign_total: Counter,
    /// Sessions ended by a deadline.
    host_timed_out_total: Counter,
    /// Events in the log, as of the last acknowledged batch.
    store_events: Gauge,
    /// Batches acknowledged.
    store_batches_total: Counter,
    /// Batches acknowledged that were there already.
    store_resent_total: Counter,
    /// Batches refused because they do not follow.
    store_out_of_order_total: Counter,
    /// Bytes written to segments.
    store_bytes_total: Counter,
    /// Time that one write and its sync took, in seconds.
    store_sync_seconds: Histogram,
    /// Batches refused because the disk was full.
    store_full_total: Counter,
    /// Failures of the disk after which the store had to be opened anew.
    store_failed_total: Counter,
    /// Whether the store is open and writable.
    store_open: Gauge,
    /// Whether the disk reserve has been used up and not yet been restored.
    store_reserve_released: Gauge,
    /// Requests that wait for the store's thread.
    store_queue: Gauge,
    /// Segments with damage, as of the last opening.
    store_damaged_segments: Gauge,
    /// Segment tails that were set aside.
    store_quarantined_total: Counter,
    /// Segments of the log, wherever they are.
    store_segments: Gauge,
    /// Those of them that are packed.
    store_segments_packed: Gauge,
    /// Those of them that are in the archive.
    store_segments_archived: Gauge,
    /// Whether an old segment could not be packed or moved when that was last tried.
    store_aging_failing: Gauge,
    /// Credentials handed to the enclave.
    credentials_served_total: Counter,
    /// Requests for credentials that could not be met.
    credentials_failed_total: Counter,
    /// Lifetime left of the credentials held for the enclave, in seconds; 0 where there are none.
    credentials_remaining_seconds: Gauge,
    /// Policies handed to the enclave.
    policy_served_total: Counter,
    /// Reports of its figures that the enclave sent.
    enclave_reports_total: Counter,
    /// Such reports that could not be read: another version, or malformed.
    enclave_reports_refused_total: Counter,
    /// Age of the last such report, in seconds; after 60 the enclave's figures are not shown. 0 where there was none.
    enclave_report_age_seconds: Gauge,
    /// Whether clients can be served, as `/readyz` says.
    ready: Gauge,
    /// Memory of this process, in bytes.
    resident_bytes: Gauge,
    /// Open files and sockets of this process.
    files_open: Gauge,
    /// Time since this process started, in seconds.
    uptime_seconds: Gauge,
    /// Configurations taken over on SIGHUP.
    reloads_total: Counter,
    /// Configurations refused on SIGHUP.
    reloads_refused_total: Counter,
}

/// What the kernel says of this process.
#[derive(Debug)]
pub(crate) struct Process(Instant);

impl Default for Process {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Process {
    /// Reads memory, open files and time since start; zero where `/proc` cannot be read.
    pub(crate) fn read(&self, resident: &Gauge, files: &Gauge, uptime: &Gauge) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        resident.set(kibibytes.unwrap_or_default() * 1024);
        files.set(std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64));
        uptime.set(self.0.elapsed().as_secs());
    }
}

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Some more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn render(&self, name: &str, help: &str, out: &mut String) {
        let _ = writeln!(out, "# HELP {name}{help}\n# TYPE {name} counter\n{name} {}", self.value());
    }
}

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// One more, until the guard is dropped.
    pub fn hold(&self) -> Held<'_> {
        self.0.fetch_add(1, Relaxed);
        Held(self)
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn render(&self, name: &str, help: &str, out: &mut String) {
        let _ = writeln!(out, "# HELP {name}{help}\n# TYPE {name} gauge\n{name} {}", self.value());
    }
}

/// One in a [`Gauge`].
#[derive(Debug)]
pub struct Held<'a>(&'a Gauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS) {
            if micros <= bound {
                bucket.fetch_add(1, Relaxed);
            }
        }
        self.count.fetch_add(1, Relaxed);
        self.sum_us.fetch_add(micros, Relaxed);
    }

    fn render(&self, name: &str, help: &str, out: &mut String) {
        let _ = writeln!(out, "# HELP {name}{help}\n# TYPE {name} histogram");
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS) {
            let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {}", seconds(bound), bucket.load(Relaxed));
        }
        let (count, sum) = (self.count.load(Relaxed), self.sum_us.load(Relaxed));
        let _ =
            writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {}\n{name}_count {count}", seconds(sum));
    }
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.relay_in_bytes_total.add(5);
        let held = metrics.relay_open.hold();
        metrics.store_sync_seconds.observe(Duration::from_micros(300));
        let text = metrics.render();
        assert!(text.contains(
            "# HELP transcode_proxy_relay_in_bytes_total Bytes from clients to the enclave.\n\
             # TYPE transcode_proxy_relay_in_bytes_total counter\ntranscode_proxy_relay_in_bytes_total 5\n"
        ));
        assert!(text.contains("transcode_proxy_relay_open 1\n"));
        assert!(text.contains("store_sync_seconds_bucket{le=\"0.00025\"} 0\n"));
        assert!(text.contains("store_sync_seconds_bucket{le=\"0.0005\"} 1\n"));
        assert!(text.contains("store_sync_seconds_sum 0.0003\n"));
        drop(held);
        assert_eq!(metrics.relay_open.value(), 0);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("transcode_proxy_") && value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
