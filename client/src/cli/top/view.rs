//! What is shown.

use std::{collections::BTreeMap, collections::VecDeque, fmt::Write as _};

use super::{super::terminal::line, Look};

/// Routes that are shown, the busiest first.
const ROUTES: usize = 8;

/// One screen. Every text that came from elsewhere is made fit for a terminal.
pub(super) fn text(looks: &VecDeque<Look>, admin: &str) -> String {
    let (Some(first), Some(last)) = (looks.front(), looks.back()) else { return String::new() };
    let elapsed = last.at.duration_since(first.at).as_secs_f64();
    let (before, now) = (&first.scrape, &last.scrape);
    let enclave = |name: &str| now.value(&format!("transcode_enclave_{name}"));
    let proxy = |name: &str| now.value(&format!("transcode_proxy_{name}")).unwrap_or_default();
    let rate = |name: &str| {
        let (then, now) = (before.sum(name), now.sum(name));
        (elapsed > 0.5).then(|| ((now - then) / elapsed).max(0.0))
    };
    let told = enclave("epoch").is_some();

    let mut out = format!("confidential top   {}\n\n", line(admin));
    let mut row = |name: &str, text: String| {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{name:<10}{text}");
    };
    row(
        "host",
        format!(
            "{}; enclave {}; figures {} s old",
            if proxy("ready") > 0.0 { "ready" } else { "NOT READY" },
            if proxy("host_session_alive") > 0.0 { "has a session" } else { "has NO SESSION" },
            proxy("enclave_report_age_seconds"),
        ),
    );
    if told {
        let value = |name: &str| enclave(name).unwrap_or_default();
        let behind = value("log_placed_events") - value("log_persisted_events");
        row(
            "log",
            format!(
                "{}, epoch {}, {} events durable, {behind} not yet{}; {} events/s",
                if value("log_available") > 0.0 { "open" } else { "CLOSED TO EVENTS" },
                value("epoch"),
                value("log_persisted_events"),
                if behind > 0.0 { format!(" for {:.1} s", value("log_unpersisted_seconds")) } else { String::new() },
                shown(rate("transcode_enclave_log_persisted_events")),
            ),
        );
        let of = |name: &str| format!("transcode_enclave_{name}");
        let failed = |code: &str| code != "OK";
        let failures: f64 =
            now.by(&of("requests_total"), "code").filter(|(code, _)| failed(code)).map(|(_, n)| n).sum();
        row(
            "requests",
            format!(
                "{}/s; {} in all, {failures} failed; {} refusals on the record or on their way",
                shown(rate(&of("requests_total"))),
                now.sum(&of("requests_total")),
                now.sum(&of("refusals_total")),
            ),
        );
        for (route, count) in busiest(now.by(&of("requests_total"), "route")) {
            let sum = sum_of(now.by(&of("request_seconds_sum"), "route"), route);
            let mean = if count > 0.0 { sum / count * 1000.0 } else { 0.0 };
            row("", format!("{:<44}{count:>10}   mean {mean:.1} ms", line(route)));
        }
        let causes: Vec<String> = now
            .by(&of("kms_failures_total"), "cause")
            .filter(|(_, count)| *count > 0.0)
            .map(|(cause, count)| format!("{} {count}", line(cause)))
            .collect();
        row(
            "KMS",
            format!(
                "{} calls, {} under way, failed: {}; credentials for {:.0} s",
                now.sum(&of("kms_calls_total")),
                value("kms_calls_under_way"),
                if causes.is_empty() { "none".to_owned() } else { causes.join(", ") },
                value("credentials_remaining_seconds"),
            ),
        );
        row(
            "keys",
            format!(
                "{} in all, {} due for rotation; policy {}",
                now.sum(&of("keys")),
                value("rotations_due"),
                value("policy_version")
            ),
        );
        row(
            "clock",
            format!(
                "{}, {:.3} s off at the last anchor, {:.0} s ago; NSM: {} wait",
                if value("clock_drifted") > 0.0 { "DRIFTED" } else { "good" },
                value("clock_drift_seconds"),
                value("clock_anchor_age_seconds"),
                now.sum(&of("nsm_waiting")),
            ),
        );
        row(
            "enclave",
            format!(
                "{} connections, {:.1} MiB, {} files, up {:.0} s",
                now.sum(&of("connections_open")),
                value("memory_resident_bytes") / 1_048_576.0,
                value("files_open"),
                value("uptime_seconds"),
            ),
        );
    }
    row(
        "proxy",
        format!(
            "{} clients, {} egress, store queue {}, {}{:.1} MiB, {} files, up {} s",
            proxy("relay_open"),
            proxy("egress_open"),
            proxy("store_queue"),
            if proxy("store_reserve_released") > 0.0 { "DISK FULL, " } else { "" },
            proxy("resident_bytes") / 1_048_576.0,
            proxy("files_open"),
            proxy("uptime_seconds"),
        ),
    );
    match &last.status {
        None => row("attested", "not asked: --server, --identity and --measurements are not all given".into()),
        Some(Err(error)) => row("attested", format!("no answer: {}", line(error))),
        Some(Ok(status)) => {
            row("attested", format!("{}, version {}", line(&status.enclave_id), line(&status.version)));
            let state = &status.persisted;
            row("", format!("log {}, epoch {}, {} events durable", status.log_id, state.epoch, state.size));
            row("", format!("{} keys active, {} due for rotation", status.active_keys, status.rotations_due));
            if let Some(failure) = &status.kms.last_failure {
                row("", format!("last failure of KMS: {}", line(failure)));
            }
        }
    }
    out.push_str("\nAll but what stands under \"attested\" is the host's word.");
    out
}

fn shown(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
}

fn sum_of<'a>(series: impl Iterator<Item = (&'a str, f64)>, wanted: &str) -> f64 {
    series.filter(|(name, _)| *name == wanted).map(|(_, value)| value).sum()
}

fn busiest<'a>(series: impl Iterator<Item = (&'a str, f64)>) -> Vec<(&'a str, f64)> {
    let mut all: BTreeMap<&str, f64> = BTreeMap::new();
    for (route, count) in series {
        *all.entry(route).or_default() += count;
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(ROUTES);
    all
}
