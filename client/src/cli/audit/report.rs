//! `audit report`: what was found, in one HTML file that loads nothing and runs nothing.

mod html;

use std::path::Path;

use serde_json::json;
use transcode_confidential::{
    audit::{
        AuditEvent, AuditSeverity,
        verify::{Report, SealedEvent, Verdict},
    },
    time::Timestamp,
};

use super::{
    event,
    stored::{self, Verified},
    tally::Tally,
};
use crate::cli::{
    args::{Global, LogArgs},
    environment::Environment,
    exit::{Done, Exit, Failure},
    files::{self, Access},
};
use html::Html;

/// Most critical events that are written out; the report says how many there are beyond.
const CRITICAL_LIMIT: usize = 20_000;
/// Bars of the time line.
const BARS: u64 = 60;
/// Spans of time that are counted apart before they are merged; bounds memory however long the log is.
const SPANS: usize = 4096;

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit report</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{margin-bottom:.2rem}h2{margin-top:2.2rem;border-bottom:1px solid #d0d7de}
table{border-collapse:collapse;width:100%;font-size:13px}td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #e5e8eb;overflow-wrap:anywhere}
.verdict{display:inline-block;padding:.3rem 1rem;border-radius:.4rem;color:#fff;font-weight:700;background:#b42318}.intact{background:#1a7f37}
th{white-space:nowrap}svg{width:100%;height:auto}.i{fill:#6e7f91}.w{fill:#d4860b}.c{fill:#b42318}text{font-size:11px;fill:#57606a}
</style></head><body>
"#;

pub(super) fn report(
    log: &LogArgs,
    output: &Path,
    global: &Global,
    environment: &Environment,
) -> Result<Done, Failure> {
    let mut found = Found::default();
    let add = &mut |sealed: SealedEvent| found.add(sealed.event);
    let Verified { report, ignored } = stored::verify(log, global, environment, Some(add))?;
    let intact = report.verdict == Verdict::Intact;
    files::replace(output, page(&report, &found, log).as_bytes(), Access::Public)?;
    let text = format!("wrote {}: {}, {} events", output.display(), report.verdict, report.events);
    Ok(Done {
        exit: if intact { Exit::Ok } else { Exit::Verification },
        json: json!({ "verdict": report.verdict, "events": report.events, "output": output }),
        text,
        notes: stored::ignored_note(&ignored).into_iter().collect(),
    })
}

#[derive(Default)]
struct Found {
    tally: Tally,
    critical: Vec<AuditEvent>,
    spans: Spans,
}

impl Found {
    fn add(&mut self, event: AuditEvent) {
        self.tally.add(&event);
        self.spans.add(event.time, event.severity);
        if event.severity == AuditSeverity::Critical && self.critical.len() < CRITICAL_LIMIT {
            self.critical.push(event);
        }
    }
}

/// Events by severity in equal spans of time. The spans double when there are too many.
struct Spans {
    start: Option<Timestamp>,
    width: u64,
    counts: Vec<[u64; 3]>,
}

impl Default for Spans {
    fn default() -> Self {
        Self { start: None, width: 1, counts: Vec::new() }
    }
}

impl Spans {
    /// Times never go back in a log.
    fn add(&mut self, time: Timestamp, severity: AuditSeverity) {
        let since = time.0.saturating_sub(self.start.get_or_insert(time).0);
        while since / self.width >= SPANS as u64 {
            self.width = self.width.saturating_mul(2);
            self.counts = self.counts.chunks(2).map(sum).collect();
        }
        let at = usize::try_from(since / self.width).unwrap_or_default();
        if self.counts.len() <= at {
            self.counts.resize(at + 1, [0; 3]);
        }
        if let Some(count) = self.counts.get_mut(at).and_then(|counts| counts.get_mut(severity as usize)) {
            *count += 1;
        }
    }

    fn bars(&self) -> Vec<[u64; 3]> {
        let each = self.counts.len().div_ceil(usize::try_from(BARS).unwrap_or(1)).max(1);
        self.counts.chunks(each).map(sum).collect()
    }
}

fn sum(counts: &[[u64; 3]]) -> [u64; 3] {
    counts.iter().fold([0; 3], |[i, w, c], [info, warning, critical]| [i + info, w + warning, c + critical])
}

fn page(report: &Report, found: &Found, log: &LogArgs) -> String {
    let mut html = Html::default();
    html.raw(HEAD).raw("<h1>Audit report</h1>\n<p><span class=\"verdict");
    html.raw(if report.verdict == Verdict::Intact { " intact\">" } else { "\">" });
    html.text(report.verdict.to_string().to_uppercase()).raw("</span></p>\n");
    if let Some(bad) = &report.first_bad {
        html.raw("<p><b>First wrong place:</b> ").text(bad);
        html.raw(". What follows is only what verified before it.</p>\n");
    }
    html.raw("<table>\n").row(&[&"Events", &report.events]);
    if let Some(id) = report.log_id {
        html.row(&[&"Log", &id]);
    }
    if let Some(head) = &report.head {
        html.row(&[&"Root", &head.root]).row(&[&"Last leaf", &head.last]);
    }
    if let (Some(first), Some(last)) = (found.tally.first, found.tally.last) {
        html.row(&[&"First event", &first]).row(&[&"Last event", &last]);
    }
    html.raw("</table>\n<h2>What was checked</h2>\n<ul><li>Every record, the chain of leaf hashes, the tree, every seal, and each epoch's attestation document up to its root.</li>\n<li>");
    match (log.checkpoint.len() + log.receipt.len()) as u64 {
        0 => html.raw("Held against no checkpoint or receipt that was kept elsewhere."),
        count => {
            html.raw("Checkpoints and receipts, kept elsewhere, that it was held against: ").number(count).raw(".")
        }
    };
    html.raw("</li>\n");
    for note in &report.notes {
        html.raw("<li>").text(note).raw(": ").text(super::explain(*note)).raw("</li>\n");
    }
    html.raw("</ul>\n");
    timeline(&mut html, found);
    epochs(&mut html, report);
    keys(&mut html, &found.tally);
    critical(&mut html, found);
    html.raw("</body></html>\n");
    html.into_string()
}

fn timeline(html: &mut Html, found: &Found) {
    html.raw("<h2>Events over time</h2>\n<p>");
    for severity in [AuditSeverity::Info, AuditSeverity::Warning, AuditSeverity::Critical] {
        html.text(severity).raw(" ").number(found.tally.severities.get(&severity).copied().unwrap_or(0)).raw(" ");
    }
    html.raw("</p>\n<svg viewBox=\"0 0 720 140\" role=\"img\" aria-label=\"Events over time by severity\">\n");
    let bars = found.spans.bars();
    let highest = bars.iter().map(|bar| bar.iter().sum::<u64>()).max().unwrap_or(0).max(1);
    let step = 720 / (bars.len() as u64).clamp(1, BARS);
    for (at, bar) in (0_u64..).zip(&bars) {
        let x = at * step;
        let mut base = 120;
        for (class, count) in ["i", "w", "c"].into_iter().zip(bar) {
            // What is there at all must be seen.
            let height = (count.saturating_mul(110) / highest).max(2 * u64::from(*count > 0)).min(base);
            base -= height;
            html.raw("<rect class=\"")
                .text(class)
                .raw("\" width=\"")
                .number(step - 2)
                .raw("\" x=\"")
                .number(x)
                .raw("\" y=\"")
                .number(base);
            html.raw("\" height=\"").number(height).raw("\"/>");
        }
    }
    if let (Some(first), Some(last)) = (found.tally.first, found.tally.last) {
        html.raw("\n<text x=\"0\" y=\"135\">").text(first).raw("</text><text x=\"720\" y=\"135\" text-anchor=\"end\">");
        html.text(last).raw("</text>");
    }
    html.raw("\n</svg>\n");
}

fn epochs(html: &mut Html, report: &Report) {
    html.raw("<h2>Epochs and images</h2>\n<table><tr><th>Epoch</th><th>First</th><th>Events</th><th>Opened</th><th>Enclave</th><th>Image</th><th>PCR0</th><th>Attested again</th></tr>\n");
    for epoch in &report.epochs {
        let image = epoch.image.as_deref().unwrap_or("not checked");
        html.row(&[
            &epoch.epoch,
            &epoch.first,
            &epoch.events,
            &epoch.opened_at,
            &epoch.enclave_id,
            &image,
            &epoch.pcr0,
            &epoch.reattestations,
        ]);
    }
    html.raw("</table>\n");
}

fn keys(html: &mut Html, tally: &Tally) {
    html.raw("<h2>Keys</h2>\n<table><tr><th>Key</th><th>Version</th><th>Made</th><th>Uses</th><th>Of at most</th><th>Openings</th><th>Last used</th><th>Last change</th></tr>\n");
    for (id, key) in &tally.keys {
        let change = key.change.map(|change| format!("{change:?}").to_lowercase()).unwrap_or_default();
        if key.versions.is_empty() {
            html.row(&[id, &"", &"", &"", &"", &"", &"", &change]);
        }
        for (number, version) in &key.versions {
            let made = version.made.map(|time| time.0.to_string()).unwrap_or_default();
            let last = version.last_used.map(|time| time.0.to_string()).unwrap_or_default();
            let most = version.max_uses.map(|most| most.to_string()).unwrap_or_default();
            html.row(&[id, number, &made, &version.uses, &most, &version.openings, &last, &change]);
        }
    }
    html.raw("</table>\n");
}

fn critical(html: &mut Html, found: &Found) {
    let all = found.tally.severities.get(&AuditSeverity::Critical).copied().unwrap_or(0);
    html.raw("<h2>Critical events</h2>\n");
    if all > found.critical.len() as u64 {
        html.raw("<p>The first ").number(found.critical.len() as u64).raw(" of ").number(all).raw(" are shown.</p>\n");
    }
    html.raw("<table><tr><th>Event</th><th>Time</th><th>Type</th><th>Key</th><th>Principal</th><th>Content</th><th>Details</th></tr>\n");
    for event in &found.critical {
        let key = event::key(event).unwrap_or_default();
        let principal = event.principal.as_deref().unwrap_or_default();
        let content = event.content_id.as_deref().unwrap_or_default();
        html.row(&[&event.sequence, &event.time, &event.event_type, &key, &principal, &content, &event.details]);
    }
    html.raw("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_line_loses_no_event_however_long_the_log_is() {
        let mut spans = Spans::default();
        for day in 0..10_000_u64 {
            spans.add(Timestamp(day * 86_400_000), AuditSeverity::Info);
        }
        let bars = spans.bars();
        assert!(spans.counts.len() <= SPANS && bars.len() as u64 <= BARS);
        assert_eq!(sum(&bars), [10_000, 0, 0]);
    }
}
