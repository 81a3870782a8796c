use std::collections::BTreeMap;

use crate::{
    audit::{AuditEvent, EventBody, KeyOperation},
    ids::{KeyVersion, Sequence},
};

/// Most streams without an end that are remembered: more than ever run at the same time.
const LIMIT: usize = 65_536;

/// A stream that began and has no recorded end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Position of the `KeyUsed` event.
    pub began: Sequence,
    /// The key.
    pub key_id: Option<String>,
    /// Its version.
    pub key_version: Option<KeyVersion>,
    /// Who began it.
    pub principal: Option<String>,
    /// The content's name.
    pub content_id: Option<String>,
}

pub(super) fn apply(unfinished: &mut BTreeMap<Sequence, Unfinished>, event: &AuditEvent) {
    match &event.body {
        Some(EventBody::KeyUsed { operation: KeyOperation::Encrypt | KeyOperation::Decrypt, .. }) => {
            if unfinished.len() == LIMIT {
                unfinished.pop_first();
            }
            unfinished.insert(event.sequence, Unfinished::of(event));
        }
        Some(EventBody::Processed { began: Some(began), .. }) => {
            unfinished.remove(began);
        }
        _ => {}
    }
}

impl Unfinished {
    fn of(event: &AuditEvent) -> Self {
        Self {
            began: event.sequence,
            key_id: event.key_id.clone(),
            key_version: event.key_version,
            principal: event.principal.clone(),
            content_id: event.content_id.clone(),
        }
    }
}
