use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::{
    audit::{AuditEvent, AuditEventType, RequestTag},
    ids::{Digest, KeyId, KeyVersion, LeafHash, Sequence},
    time::Timestamp,
};

/// Most requests that are remembered; the oldest is forgotten first.
pub const ANSWERED_LIMIT: usize = 16_384;
/// How long a request is remembered.
pub const ANSWERED_AGE: Duration = Duration::from_secs(24 * 3600);

/// Requests that took effect and may come again: those with an idempotency key, or reports of work, by the [`RequestTag`] of
/// the event that records them. A fold over those events, so it outlives a restart. Bounded by [`ANSWERED_LIMIT`] and
/// [`ANSWERED_AGE`]; a request that was forgotten is new.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnsweredRequests {
    by_key: HashMap<Digest, Answered>,
    in_order: BTreeMap<Sequence, Digest>,
}

/// A request that took effect, by the event that records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Who asked under which name, and what.
    pub tag: RequestTag,
    /// The event.
    pub sequence: Sequence,
    /// Its leaf hash.
    pub leaf: LeafHash,
    /// Its time.
    pub time: Timestamp,
    /// Its type.
    pub event_type: AuditEventType,
    /// The key that it concerns.
    pub key: Option<KeyId>,
    /// The version of that key.
    pub version: Option<KeyVersion>,
}

impl AnsweredRequests {
    /// Nothing was asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The request that came under the same name, where it is remembered at `now`. Compare its
    /// [`RequestTag::request`]: it may have been another one.
    pub fn find(&self, tag: &RequestTag, now: Timestamp) -> Option<&Answered> {
        self.by_key.get(&tag.key).filter(|answered| now.since(answered.time) < ANSWERED_AGE)
    }

    /// Every remembered request, oldest first. Inserting them in this order into an empty table gives an equal one.
    pub fn iter(&self) -> impl Iterator<Item = &Answered> {
        self.in_order.values().filter_map(|key| self.by_key.get(key))
    }

    /// Number of remembered requests.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Remembers a request; forgets what is too old by its time, or too much.
    pub fn insert(&mut self, answered: Answered) {
        let now = answered.time;
        let key = answered.tag.key;
        self.in_order.insert(answered.sequence, key);
        if let Some(before) = self.by_key.insert(key, answered) {
            self.in_order.remove(&before.sequence);
        }
        while let Some((sequence, oldest)) = self.in_order.first_key_value().map(|(at, key)| (*at, *key)) {
            let aged = self.by_key.get(&oldest).is_none_or(|answered| now.since(answered.time) >= ANSWERED_AGE);
            if !aged && self.by_key.len() <= ANSWERED_LIMIT {
                break;
            }
            self.in_order.remove(&sequence);
            self.by_key.remove(&oldest);
        }
    }
}

impl Answered {
    pub(super) fn by(event: &AuditEvent, tag: RequestTag) -> Self {
        Self {
            tag,
            sequence: event.sequence,
            leaf: event.hash,
            time: event.time,
            event_type: event.event_type,
            key: event.key_id.as_deref().and_then(|id| id.parse().ok()),
            version: event.key_version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(n: u64, key: u64, time: Timestamp) -> Answered {
        Answered {
            tag: RequestTag { key: Digest::of(&key.to_be_bytes()), request: Digest::of(b"request") },
            sequence: Sequence(n),
            leaf: LeafHash::ZERO,
            time,
            event_type: AuditEventType::KeyRotated,
            key: None,
            version: None,
        }
    }

    #[test]
    fn a_request_is_remembered_for_a_day() {
        let mut table = AnsweredRequests::new();
        let first = answered(1, 1, Timestamp(1000));
        table.insert(first.clone());
        let end = Timestamp(1000).plus(ANSWERED_AGE);
        assert_eq!(table.find(&first.tag, Timestamp(end.0 - 1)), Some(&first));
        assert_eq!(table.find(&first.tag, end), None);
        table.insert(answered(2, 2, end));
        assert_eq!(table.len(), 1, "what is too old makes room");
    }

    #[test]
    fn of_too_many_requests_the_oldest_is_forgotten() {
        let mut table = AnsweredRequests::new();
        for n in 0..=ANSWERED_LIMIT as u64 {
            table.insert(answered(n, n, Timestamp(n)));
        }
        assert_eq!((table.len(), table.iter().count()), (ANSWERED_LIMIT, ANSWERED_LIMIT));
        assert_eq!(table.find(&answered(0, 0, Timestamp(0)).tag, Timestamp(0)), None);
        assert!(table.find(&answered(1, 1, Timestamp(1)).tag, Timestamp(1)).is_some());
    }

    #[test]
    fn a_table_is_what_its_requests_make_it() {
        let mut table = AnsweredRequests::new();
        for (n, key) in [(1, 7), (2, 8), (5, 7), (9, 3)] {
            table.insert(answered(n, key, Timestamp(n)));
        }
        assert_eq!(table.iter().map(|one| one.sequence.0).collect::<Vec<_>>(), [2, 5, 9]);
        let mut again = AnsweredRequests::new();
        table.iter().cloned().for_each(|one| again.insert(one));
        assert_eq!(again, table);
    }
}
