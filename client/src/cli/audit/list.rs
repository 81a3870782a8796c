//! `audit list` and `audit show`.

use std::{collections::VecDeque, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use transcode_confidential::{
    audit::{AuditEvent, verify::SealedEvent},
    ids::{Digest, Sequence},
};

use super::{
    event::{self, row},
    source::{self, Range},
};
use crate::cli::{
    args::{Global, ListArgs, QueryArgs},
    environment::Environment,
    exit::{Done, Failure},
    terminal::line,
};

pub(super) fn list(args: &ListArgs, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let mut kept: VecDeque<AuditEvent> = VecDeque::new();
    let mut matched = 0_u64;
    let range = Range::from(args.filter.first());
    let source = source::events(&args.query, range, global, environment, &mut |sealed| {
        if !args.filter.accepts(&sealed.event) {
            return;
        }
        matched += 1;
        if args.last && kept.len() == args.limit {
            kept.pop_front();
        }
        if kept.len() < args.limit {
            kept.push_back(sealed.event);
        }
    })?;
    let cut = matched > kept.len() as u64;
    let events: Vec<_> = kept.iter().map(event::object).collect();
    let json = source.object(json!({ "events": events, "matched": matched, "cut": cut }));
    let rows: Vec<_> = kept.iter().map(row).collect();
    let mut done = Done::ok(json, rows.join("\n"));
    done.notes = source.notes();
    match (cut, kept.back()) {
        (true, Some(last)) if !args.last => {
            done.notes.push(format!(
                "{} of {matched} events; --after {} goes on, --limit N takes more",
                kept.len(),
                last.sequence
            ));
        }
        (true, _) => done.notes.push(format!("{} of {matched} events; --limit N takes more", kept.len())),
        (false, None) => done.notes.push("no such event".into()),
        (false, Some(_)) => {}
    }
    Ok(done)
}

pub(super) fn show(
    query: &QueryArgs,
    wanted: Sequence,
    global: &Global,
    environment: &Environment,
) -> Result<Done, Failure> {
    let mut found: Option<SealedEvent> = None;
    let range = Range { from: wanted, last: Some(wanted) };
    let source = source::events(query, range, global, environment, &mut |sealed| {
        if sealed.event.sequence == wanted && found.is_none() {
            found = Some(sealed);
        }
    })?;
    let found = found.ok_or_else(|| Failure::malformed(format!("the log has no event {wanted}")))?;
    let leaf = found.event.to_leaf().map_err(|error| Failure::malformed(error.to_string()))?;
    let mut event = event::object(&found.event);
    if let Value::Object(event) = &mut event {
        event.insert("leaf".into(), STANDARD.encode(&leaf).into());
        event.insert("records".into(), records(&found));
    }
    let text = describe(&found, event.get("body"), leaf.len());
    let mut done = Done::ok(source.object(json!({ "event": event })), text);
    done.notes = source.notes();
    Ok(done)
}

/// The records beside the event. What they hold is left out: wrapped keys belong in no export.
fn records(sealed: &SealedEvent) -> Value {
    let record = |record: &transcode_confidential::audit::segment::Record| {
        json!({
            "kind": format!("{:?}", record.kind),
            "bytes": record.payload.len(),
            "sha256": Digest::of(&record.payload),
        })
    };
    sealed.attachments.iter().map(record).collect()
}

fn describe(sealed: &SealedEvent, body: Option<&Value>, leaf: usize) -> String {
    let event = &sealed.event;
    let mut text = format!("event {} of epoch {}", event.sequence, event.epoch);
    let mut field = |title: &str, value: &str| {
        let _ = write!(text, "\n  {title:10} {}", line(value));
    };
    field("time", &event.time.to_string());
    field("type", &event.event_type.to_string());
    field("severity", &event.severity.to_string());
    let key = event::key(event);
    let names = [
        ("enclave", &event.enclave_id),
        ("key", &key),
        ("principal", &event.principal),
        ("content", &event.content_id),
    ];
    for (title, name) in names {
        if let Some(name) = name {
            field(title, name);
        }
    }
    field("details", &event.details);
    for (name, value) in body.and_then(Value::as_object).into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        field("", &format!("{name} {value}"));
    }
    for record in &sealed.attachments {
        let digest = Digest::of(&record.payload);
        field("record", &format!("{:?}, {} bytes, SHA-256 {digest}", record.kind, record.payload.len()));
    }
    field("previous", &event.previous.to_string());
    field("hash", &format!("{} (leaf of {leaf} bytes)", event.hash));
    text
}
