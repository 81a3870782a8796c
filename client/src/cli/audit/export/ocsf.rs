//! An event as OCSF 1.3.0 has it: class API Activity (6003) of category Application Activity (6).

use serde_json::{Map, Value, json};
use transcode_confidential::{
    audit::{AuditEvent, AuditEventType, AuditSeverity, EventBody, KeyChange},
    ids::LogId,
};

const CLASS: u64 = 6003;

/// `leaf` is base64 and goes under `unmapped`, with the hashes that tie it to the log.
pub(super) fn event(event: &AuditEvent, log_id: Option<LogId>, leaf: &str) -> Value {
    let activity = activity(event);
    let kind = event.event_type.to_string();
    let failed = matches!(
        event.event_type,
        AuditEventType::AttestationFailed | AuditEventType::PolicyViolation | AuditEventType::UnauthorizedAccess
    );
    let mut object = json!({
        "category_uid": 6,
        "category_name": "Application Activity",
        "class_uid": CLASS,
        "class_name": "API Activity",
        "activity_id": activity.0,
        "activity_name": if activity.0 == 99 { kind.as_str() } else { activity.1 },
        "type_uid": CLASS * 100 + activity.0,
        "severity_id": severity(event.severity).0,
        "severity": severity(event.severity).1,
        "status_id": if failed { 2 } else { 1 },
        "status": if failed { "Failure" } else { "Success" },
        "time": event.time,
        "message": event.details,
        "api": { "operation": kind, "service": { "name": "transcode-confidential" } },
        "actor": actor(event),
        // The log does not record where a request came from.
        "src_endpoint": { "name": "unknown" },
        "metadata": {
            "version": "1.3.0",
            "product": { "name": "transcode-confidential", "vendor_name": "transcode-confidential" },
            "uid": event.hash,
            "sequence": event.sequence,
            "event_code": kind,
            "log_name": log_id,
        },
        "unmapped": {
            "epoch": event.epoch,
            "enclave_id": event.enclave_id,
            "body": event.body,
            "sequence": event.sequence,
            "previous": event.previous,
            "hash": event.hash,
            "leaf": leaf,
        },
    });
    let resources = resources(event);
    if let (Value::Object(object), false) = (&mut object, resources.is_empty()) {
        object.insert("resources".into(), resources.into());
    }
    object
}

fn activity(event: &AuditEvent) -> (u64, &'static str) {
    match (event.event_type, &event.body) {
        (AuditEventType::EnclaveCreated | AuditEventType::KeyGenerated, _) => (1, "Create"),
        (AuditEventType::KeyRotated | AuditEventType::PolicyChanged, _) => (3, "Update"),
        (
            AuditEventType::KeyRevoked,
            Some(EventBody::KeyChanged { change: KeyChange::Suspended | KeyChange::Resumed }),
        ) => (3, "Update"),
        (AuditEventType::KeyRevoked, _) => (4, "Delete"),
        _ => (99, "Other"),
    }
}

const fn severity(severity: AuditSeverity) -> (u64, &'static str) {
    match severity {
        AuditSeverity::Info => (1, "Informational"),
        AuditSeverity::Warning => (3, "Medium"),
        AuditSeverity::Critical => (5, "Critical"),
    }
}

fn actor(event: &AuditEvent) -> Value {
    match &event.principal {
        Some(principal) => json!({ "user": { "name": principal, "type_id": 0 } }),
        None => json!({ "app_name": "transcode-confidential" }),
    }
}

fn resources(event: &AuditEvent) -> Vec<Value> {
    let mut resources = Vec::new();
    if let Some(key) = &event.key_id {
        let mut resource = Map::from_iter([("uid".into(), json!(key)), ("type".into(), "content key".into())]);
        if let Some(version) = event.key_version {
            resource.insert("version".into(), version.to_string().into());
        }
        resources.push(resource.into());
    }
    if let Some(content) = &event.content_id {
        resources.push(json!({ "uid": content, "type": "content" }));
    }
    resources
}
