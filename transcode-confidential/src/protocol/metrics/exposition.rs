//! The Prometheus text exposition format, version 0.0.4.

use std::fmt::Write as _;

use super::{BOUNDS, CATALOGUE, Family, PREFIX, Report, Series, Shape};

impl Report {
    /// Writes every family of the catalogue. Counters and gauges with at most one label show all their series, so that a rule
    /// upon them finds a zero where nothing has happened; of the others, what has happened.
    pub fn expose(&self, out: &mut String) {
        let mut rest = self.series();
        for (index, family) in CATALOGUE.iter().enumerate() {
            let (mine, others) = rest.split_at(rest.partition_point(|series| series.family <= index));
            rest = others;
            let kind = match family.shape {
                Shape::Counter => "counter",
                Shape::Gauge { .. } => "gauge",
                Shape::Histogram => "histogram",
            };
            // Writing to a String does not fail, here and below.
            let _ = writeln!(out, "# HELP {PREFIX}{0} {1}\n# TYPE {PREFIX}{0} {kind}", family.name, family.help);
            if family.shape != Shape::Histogram && family.labels.len() <= 1 || family.labels.is_empty() {
                let zeros = vec![0; family.width()];
                for position in 0..family.series() {
                    let found = mine.iter().find(|series| series.position == position);
                    expose(family, position, found.map_or(&zeros, |series| &series.values), out);
                }
            } else {
                mine.iter().for_each(|Series { position, values, .. }| expose(family, *position, values, out));
            }
        }
    }
}

fn expose(family: &Family, position: usize, values: &[u64], out: &mut String) {
    let name = family.name;
    let first = values.first().copied().unwrap_or_default();
    let _ = match family.shape {
        Shape::Counter | Shape::Gauge { per: 0 | 1 } => {
            writeln!(out, "{PREFIX}{name}{} {first}", labels(family, position, None))
        }
        Shape::Gauge { per } => {
            writeln!(out, "{PREFIX}{name}{} {}", labels(family, position, None), scaled(first, per))
        }
        Shape::Histogram => {
            let (buckets, sum) = values.split_at(BOUNDS.len() + 1);
            let mut count = 0_u64;
            let bounds = BOUNDS.iter().map(|bound| scaled(*bound, 1_000_000).to_string()).chain(["+Inf".to_owned()]);
            for (bucket, bound) in buckets.iter().zip(bounds) {
                count = count.saturating_add(*bucket);
                let labels = labels(family, position, Some(&bound));
                let _ = writeln!(out, "{PREFIX}{name}_bucket{labels} {count}");
            }
            let labels = labels(family, position, None);
            let sum = scaled(sum.first().copied().unwrap_or_default(), 1_000_000);
            writeln!(out, "{PREFIX}{name}_sum{labels} {sum}\n{PREFIX}{name}_count{labels} {count}")
        }
    };
}

#[allow(clippy::cast_precision_loss, reason = "a figure to look at, not to count with")]
fn scaled(value: u64, per: u64) -> f64 {
    value as f64 / per as f64
}

/// `{name="value",...}`, or nothing. Values are the catalogue's own and need no escapes: a test holds them to that.
fn labels(family: &Family, position: usize, bound: Option<&str>) -> String {
    let mut rest = position;
    let mut pairs: Vec<String> = Vec::new();
    for label in family.labels.iter().rev() {
        let count = label.values.len().max(1);
        let value = label.values.get(rest % count).copied().unwrap_or_default();
        rest /= count;
        pairs.push(format!("{}=\"{value}\"", label.name));
    }
    pairs.reverse();
    pairs.extend(bound.map(|bound| format!("le=\"{bound}\"")));
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::metrics::Metric;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let requests = &CATALOGUE[Metric::Requests as usize];
        let mut latency = vec![0; CATALOGUE[Metric::PersistSeconds as usize].width()];
        latency[1] = 3;
        latency[3] = 1;
        latency[BOUNDS.len() + 1] = 3_200;
        let report = Report::new(vec![
            Series { family: Metric::PersistSeconds as usize, position: 0, values: latency },
            Series { family: Metric::CredentialsRemaining as usize, position: 0, values: vec![1_500] },
            Series {
                family: Metric::Requests as usize,
                position: requests.position(&["POST /v1/decrypt", "DENIED"]),
                values: vec![7],
            },
        ]);
        let mut text = String::new();
        report.expose(&mut text);
        for line in [
            "# TYPE transcode_enclave_requests_total counter",
            "transcode_enclave_requests_total{route=\"POST /v1/decrypt\",code=\"DENIED\"} 7",
            "transcode_enclave_credentials_remaining_seconds 1.5",
            "transcode_enclave_log_persist_seconds_bucket{le=\"0.00025\"} 0",
            "transcode_enclave_log_persist_seconds_bucket{le=\"0.0005\"} 3",
            "transcode_enclave_log_persist_seconds_bucket{le=\"0.0025\"} 4",
            "transcode_enclave_log_persist_seconds_bucket{le=\"+Inf\"} 4",
            "transcode_enclave_log_persist_seconds_sum 0.0032",
            "transcode_enclave_log_persist_seconds_count 4",
            "transcode_enclave_kms_failures_total{cause=\"throttled\"} 0",
            "transcode_enclave_log_placed_events 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
