//! One event, for programs and for people.

use std::fmt::Write as _;

use serde_json::{Value, json};
use transcode_confidential::audit::AuditEvent;

use crate::cli::terminal::line;

/// The event for programs. Absent fields are null.
pub(super) fn object(event: &AuditEvent) -> Value {
    json!({
        "sequence": event.sequence,
        "epoch": event.epoch,
        "time": event.time.to_string(),
        "type": event.event_type,
        "severity": event.severity,
        "enclave_id": event.enclave_id,
        "key_id": event.key_id,
        "key_version": event.key_version,
        "principal": event.principal,
        "content_id": event.content_id,
        "details": event.details,
        "body": event.body,
        "previous": event.previous,
        "hash": event.hash,
    })
}

/// The event on one line of a terminal.
pub(super) fn row(event: &AuditEvent) -> String {
    let (severity, kind) = (event.severity.to_string(), event.event_type.to_string());
    let mut text = format!("{:>8}  {}  {severity:8}  {kind:19}", event.sequence, event.time);
    if let Some(key) = key(event) {
        let _ = write!(text, "  {key}");
    }
    let names = [("by", &event.principal), ("content", &event.content_id)];
    for (title, name) in names {
        if let Some(name) = name {
            let _ = write!(text, "  {title} {}", line(name));
        }
    }
    let _ = write!(text, "  {}", line(&event.details));
    text
}

/// Key and version, as `film#2`.
pub(super) fn key(event: &AuditEvent) -> Option<String> {
    let id = line(event.key_id.as_deref()?);
    Some(match event.key_version {
        Some(version) => format!("{id}#{version}"),
        None => id,
    })
}
