//! What the events of a log add up to.

use std::collections::BTreeMap;

use serde::Serialize;
use transcode_confidential::{
    audit::{AuditEvent, AuditEventType, AuditSeverity, EventBody, KeyChange},
    time::Timestamp,
};

/// Counts over events. Grows with the number of keys and principals, not with that of events.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) events: u64,
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
    pub(super) types: BTreeMap<AuditEventType, u64>,
    pub(super) severities: BTreeMap<AuditSeverity, u64>,
    pub(super) keys: BTreeMap<String, KeyTally>,
    pub(super) principals: BTreeMap<String, PrincipalTally>,
    /// Refusals that the events stand for: one event may be many.
    pub(super) refusals: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct KeyTally {
    pub(super) events: u64,
    /// The last change, where there was one: revoked, destroyed, suspended, resumed.
    pub(super) change: Option<KeyChange>,
    pub(super) versions: BTreeMap<u32, VersionTally>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct VersionTally {
    pub(super) made: Option<Time>,
    /// Uses that count against the version's limit.
    pub(super) uses: u64,
    /// Uses that do not: decryption and unwrapping.
    pub(super) openings: u64,
    pub(super) max_uses: Option<u64>,
    pub(super) last_used: Option<Time>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct PrincipalTally {
    pub(super) events: u64,
    pub(super) critical: u64,
}

/// A time that programs read as RFC 3339.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub(super) Timestamp);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Tally {
    pub(super) fn add(&mut self, event: &AuditEvent) {
        self.events += 1;
        self.first = self.first.or(Some(event.time));
        self.last = Some(event.time);
        *self.types.entry(event.event_type).or_default() += 1;
        *self.severities.entry(event.severity).or_default() += 1;
        if let Some(principal) = &event.principal {
            let principal = self.principals.entry(principal.clone()).or_default();
            principal.events += 1;
            principal.critical += u64::from(event.severity == AuditSeverity::Critical);
        }
        if let Some(key) = &event.key_id
            && (is_of_a_key(event) || self.keys.contains_key(key))
        {
            self.keys.entry(key.clone()).or_default().add(event);
        }
        match &event.body {
            Some(EventBody::Refused { count, .. }) => self.refusals = self.refusals.saturating_add(*count),
            Some(EventBody::Processed { bytes_in, bytes_out, .. }) => {
                self.bytes_in = self.bytes_in.saturating_add(*bytes_in);
                self.bytes_out = self.bytes_out.saturating_add(*bytes_out);
            }
            _ => {}
        }
    }
}

/// A refusal names whatever was asked for: that makes no key.
const fn is_of_a_key(event: &AuditEvent) -> bool {
    matches!(event.body, Some(EventBody::KeyCreated { .. } | EventBody::KeyChanged { .. } | EventBody::KeyUsed { .. }))
}

impl KeyTally {
    fn add(&mut self, event: &AuditEvent) {
        self.events += 1;
        if let Some(EventBody::KeyChanged { change }) = &event.body {
            self.change = Some(*change);
        }
        // A refusal may name a version that never was.
        let Some(EventBody::KeyUsed { .. } | EventBody::KeyCreated { .. }) = &event.body else { return };
        let Some(version) = event.key_version else { return };
        let version = self.versions.entry(version.0).or_default();
        match &event.body {
            Some(EventBody::KeyCreated { max_uses, .. }) => {
                version.made = Some(Time(event.time));
                version.max_uses = Some(*max_uses);
            }
            Some(EventBody::KeyUsed { operation, uses, .. }) => {
                version.uses = version.uses.saturating_add(*uses);
                version.openings += u64::from(!operation.is_counted());
                version.last_used = Some(Time(event.time));
            }
            _ => {}
        }
    }
}
