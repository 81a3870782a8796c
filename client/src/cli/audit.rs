//! `confidential audit`: a log, stored or at the server, verified and read.

mod ahead;
mod consistency;
mod event;
mod export;
mod growing;
mod list;
mod live;
mod maintain;
mod prove;
mod report;
mod source;
mod stats;
mod stored;
mod tail;
mod tally;
mod tiles;

use std::{fmt::Write as _, io::Write, path::Path};

use serde_json::json;
use transcode_confidential::{
    audit::verify::{EpochSummary, Note, Report, Verdict},
    ids::Sequence,
};

use super::{
    args::{AuditVerb, Global, LogArgs},
    connection,
    environment::Environment,
    exit::{Done, Exit, Failure},
    files::{self, Access},
    terminal::line,
};
pub(super) use source::{Range, events};
use stored::Verified;

pub(super) fn run(
    verb: AuditVerb,
    global: &Global,
    environment: &Environment,
    spoken: (&mut dyn Write, &mut dyn Write),
) -> Result<Done, Failure> {
    match verb {
        AuditVerb::Verify(log) => verify(&log, global, environment),
        AuditVerb::List(list) => list::list(&list, global, environment),
        AuditVerb::Show { query, event } => list::show(&query, event, global, environment),
        AuditVerb::Stats { query, filter } => stats::stats(&query, &filter, global, environment),
        AuditVerb::Tail(tail) => tail::tail(&tail, global, environment, spoken),
        AuditVerb::Consistency(consistency) => consistency::prove(&consistency, global, environment),
        AuditVerb::Export(export) => match &export.tiles {
            Some(tiles) => tiles::export(&export.query, tiles, global, environment),
            None => export::export(&export, global, environment),
        },
        AuditVerb::Prove(prove) => prove::prove(&prove, global, environment),
        AuditVerb::Report { log, output } => report::report(&log, &output, global, environment),
        AuditVerb::Keep(verb) => maintain::run(verb, global, environment),
        AuditVerb::Checkpoint { output } => fetch_checkpoint(output.as_deref(), global, environment),
    }
}

fn fetch_checkpoint(output: Option<&Path>, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let configured = connection::client(global, environment)?;
    let view = connection::block_on(async { Ok(configured.client.log().await?) })?;
    let (checkpoint, state) = (view.checkpoint(), view.checkpoint().state());
    let text = match output {
        None => checkpoint.note().trim_end().to_owned(),
        Some(path) => {
            files::replace(path, checkpoint.note().as_bytes(), Access::Public)?;
            format!("wrote {}: log {}, {} events", path.display(), view.log_id(), state.size)
        }
    };
    let json = json!({ "log_id": view.log_id(), "state": state, "checkpoint": checkpoint.note() });
    let mut done = Done::ok(json, text);
    done.notes = configured.notes(&view);
    Ok(done)
}

fn verify(log: &LogArgs, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let Verified { report, ignored } = stored::verify(log, global, environment, None)?;
    let mut done = Done {
        exit: if report.verdict == Verdict::Intact { Exit::Ok } else { Exit::Verification },
        json: object(&report, global.any_image, &ignored),
        text: text(&report, global.any_image),
        notes: Vec::new(),
    };
    done.notes.extend(stored::ignored_note(&ignored));
    Ok(done)
}

fn object(report: &Report, any_image: bool, ignored: &[String]) -> serde_json::Value {
    json!({
        "verdict": report.verdict,
        "events": report.events,
        "begins": report.begins,
        "kept_from": report.kept_from,
        "epochs": report.epochs.len(),
        "head": report.head,
        "first_bad": report.first_bad,
        "notes": report.notes,
        "image": if any_image { "unchecked" } else { "expected" },
        "log_id": report.log_id,
        "log_key": report.log_key,
        "epoch_list": report.epochs,
        "tail": report.tail,
        "ignored": ignored,
    })
}

fn text(report: &Report, any_image: bool) -> String {
    let mut text = report.verdict.to_string().to_uppercase();
    let _ = match (report.verdict, &report.first_bad) {
        (Verdict::Intact, _) => {
            let from = match report.begins {
                Sequence(0) => String::new(),
                begins => format!(", verified from event {begins} on"),
            };
            write!(text, ": {} events in {} epochs{from}", report.events, report.epochs.len())
        }
        (_, Some(finding)) => write!(text, ": {}", line(&finding.to_string())),
        (_, None) => Ok(()),
    };
    if report.verdict != Verdict::Intact {
        let _ = write!(text, "\n  verified up to there: {} events in {} epochs", report.events, report.epochs.len());
    }
    if let Some(log_id) = report.log_id {
        let _ = write!(text, "\n  log    {log_id}");
    }
    if let Some(head) = &report.head {
        let _ = write!(text, "\n  head   {} events, root {}", head.size, head.root);
    }
    for epoch in &report.epochs {
        let _ = write!(text, "\n  epoch  {}", describe(epoch));
    }
    for note in &report.notes {
        let _ = write!(text, "\n  note   {note}: {}", explain(*note));
    }
    if any_image && !report.notes.contains(&Note::ImageUnchecked) {
        let _ = write!(text, "\n  note   {}: {}", Note::ImageUnchecked, explain(Note::ImageUnchecked));
    }
    text
}

fn describe(epoch: &EpochSummary) -> String {
    let image = match &epoch.image {
        _ if epoch.told => format!("given up, as a snapshot tells; PCR0 {}", epoch.pcr0),
        Some(label) => line(label),
        None => format!("image not checked, PCR0 {}", epoch.pcr0),
    };
    let restored = if epoch.restored { ", taken up from a copy" } else { "" };
    format!(
        "{}: {} events from {}, opened {} by {} ({image}){restored}",
        epoch.epoch,
        epoch.events,
        epoch.first,
        epoch.opened_at,
        line(&epoch.enclave_id)
    )
}

const fn explain(note: Note) -> &'static str {
    match note {
        Note::UnsealedTail => "the last write was interrupted; nobody was ever told of those events",
        Note::Unanchored => {
            "no --checkpoint or --receipt was given, so a tail cut off between two seals would not show"
        }
        Note::ImageUnchecked => "any enclave image was accepted as the author",
        Note::UnknownEpoch => "the signature of some evidence could not be checked against this log",
        Note::Pruned => {
            "the log begins with a snapshot; the events before it were given up on the record, and are vouched for by the \
             enclave that took the snapshot"
        }
        Note::Restored => {
            "the policy authority had the log taken up from an older copy: what came after the copy is lost"
        }
        Note::EvidenceOfLost => {
            "some evidence is of events that were lost when the log was taken up from an older copy"
        }
        Note::EvidenceOfPruned => "some evidence is of events that were given up: only its signature was checked",
        _ => "see the documentation",
    }
}
