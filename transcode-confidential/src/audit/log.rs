use super::{AuditEvent, AuditEventType, AuditSeverity, ChainError, EventDraft, chain::Chain, leaf::leaf_hash};
use crate::{
    ids::LeafHash,
    time::{Clock, SystemClock},
};

/// A hash-chained log held in memory.
///
/// Each event's leaf holds the hash of the event before, so a change to any event, or an event left out, moved or put in,
/// shows. What it cannot show by itself is that its end was cut off, or that all of it was written anew: for that the head
/// must be known to somebody else, which is what the enclave's seals, receipts and checkpoints are for.
///
/// ```
/// use transcode_confidential::audit::{AuditEventType, AuditLog, AuditSeverity};
///
/// let mut log = AuditLog::new();
/// assert!(log.is_empty() && log.verify_integrity());
/// log.log(AuditEventType::PolicyViolation, None, None, "frame too large".into(), AuditSeverity::Critical);
/// assert_eq!(log.critical_events()[0].details, "frame too large");
/// assert_eq!(log.head(), log.events()[0].hash);
/// ```
pub struct AuditLog {
    chain: Chain,
    events: Vec<AuditEvent>,
    clock: Box<dyn Clock>,
}

impl AuditLog {
    /// An empty log on the system's clock.
    pub fn new() -> Self {
        Self::with_clock(SystemClock)
    }

    /// An empty log on the given clock.
    pub fn with_clock(clock: impl Clock + 'static) -> Self {
        Self { chain: Chain::new(), events: Vec::new(), clock: Box::new(clock) }
    }

    /// Records an event and returns it.
    ///
    /// Never fails and never loses the event: a name longer than [`super::NAME_LIMIT`] bytes or details longer than
    /// [`super::DETAILS_LIMIT`] are shortened at a character boundary, and shortened details say so. Use
    /// [`AuditLog::append`] to refuse them instead.
    pub fn log(
        &mut self,
        event_type: AuditEventType,
        enclave_id: Option<String>,
        key_id: Option<String>,
        details: String,
        severity: AuditSeverity,
    ) -> &AuditEvent {
        let mut draft = EventDraft::new(event_type, details).severity(severity);
        draft.enclave_id = enclave_id;
        draft.key_id = key_id;
        self.record(draft)
    }

    /// Records a draft, shortening what is too long.
    pub fn record(&mut self, draft: EventDraft) -> &AuditEvent {
        let at = self.events.len();
        // A clipped draft is within every limit of a leaf but for its body, whose texts are this crate's own. Should one
        // not fit all the same, the event is kept without it rather than lost.
        let draft = draft.clipped();
        let bare = EventDraft { body: None, ..draft.clone() };
        if self.append(draft).is_err() {
            let _ = self.append(bare);
        }
        debug_assert_eq!(self.events.len(), at + 1);
        self.events.last().unwrap_or_else(|| unreachable!("a clipped draft without a body always fits"))
    }

    /// Records a draft as it is.
    ///
    /// # Errors
    /// [`ChainError::Leaf`] where a text is too long; the log is unchanged then.
    pub fn append(&mut self, draft: EventDraft) -> Result<&AuditEvent, ChainError> {
        let now = self.clock.now();
        let (event, _leaf) = self.chain.append(draft, now)?;
        let at = self.events.len();
        self.events.push(event);
        self.events.get(at).ok_or(ChainError::Full)
    }

    /// Number of events.
    pub const fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing was recorded yet.
    pub const fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events, oldest first.
    pub fn events(&self) -> &[AuditEvent] {
        &self.events
    }

    /// Hash of the last event; [`LeafHash::ZERO`] for an empty log. Who keeps it can tell later whether the log still holds
    /// all that it held now.
    pub const fn head(&self) -> LeafHash {
        self.chain.last()
    }

    /// The chain's head, with size and tree root.
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Encodes and hashes every event anew and checks that each follows on the one before and that all of them together
    /// lead to the head.
    pub fn verify_integrity(&self) -> bool {
        let mut chain = Chain::new();
        let follows = |event: &AuditEvent| {
            event.to_leaf().is_ok_and(|leaf| leaf_hash(&leaf) == event.hash) && chain.follow(event).is_ok()
        };
        self.events.iter().all(follows) && chain == self.chain
    }

    /// The events of one type, oldest first.
    pub fn events_by_type(&self, event_type: &AuditEventType) -> Vec<&AuditEvent> {
        self.events.iter().filter(|event| event.event_type == *event_type).collect()
    }

    /// The events of one severity, oldest first.
    pub fn events_by_severity(&self, severity: AuditSeverity) -> Vec<&AuditEvent> {
        self.events.iter().filter(|event| event.severity == severity).collect()
    }

    /// The events about one key, oldest first.
    pub fn events_by_key(&self, key_id: &str) -> Vec<&AuditEvent> {
        self.events.iter().filter(|event| event.key_id.as_deref() == Some(key_id)).collect()
    }

    /// The events that somebody should act upon, oldest first.
    pub fn critical_events(&self) -> Vec<&AuditEvent> {
        self.events_by_severity(AuditSeverity::Critical)
    }
}

impl Default for AuditLog {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").field("events", &self.events.len()).field("head", &self.head()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::Sequence, time::Timestamp};

    fn sample() -> AuditLog {
        let mut log = AuditLog::new();
        for n in 0..5 {
            log.log(
                AuditEventType::ALL[n % 12],
                Some("enclave".into()),
                Some(format!("key-{n}")),
                format!("event {n}"),
                AuditSeverity::Info,
            );
        }
        log
    }

    #[test]
    fn a_change_of_any_field_of_any_event_is_found() {
        let changes: [fn(&mut AuditEvent); 12] = [
            |e| e.sequence = Sequence(e.sequence.0 + 1),
            |e| e.epoch.0 += 1,
            |e| e.time.0 += 1,
            |e| e.event_type = AuditEventType::LogMaintained,
            |e| e.severity = AuditSeverity::Critical,
            |e| e.enclave_id = None,
            |e| e.key_id = Some("other".into()),
            |e| e.key_version = Some(crate::ids::KeyVersion(1)),
            |e| e.principal = Some(String::new()),
            |e| e.details.push(' '),
            |e| e.previous = LeafHash::new([1; 32]),
            |e| e.hash = LeafHash::new([1; 32]),
        ];
        for at in 0..5 {
            for (n, change) in changes.iter().enumerate() {
                let mut log = sample();
                change(&mut log.events[at]);
                assert!(!log.verify_integrity(), "event {at}, change {n}");
            }
        }
    }

    #[test]
    fn events_left_out_swapped_or_cut_off_are_found() {
        for at in 0..5 {
            let mut log = sample();
            log.events.remove(at);
            assert!(!log.verify_integrity(), "event {at} left out");
        }
        let mut log = sample();
        log.events.swap(1, 2);
        assert!(!log.verify_integrity());
        let mut log = sample();
        let again = log.events[4].clone();
        log.events.push(again);
        assert!(!log.verify_integrity());
    }

    #[test]
    fn an_event_rewritten_with_its_own_hash_mended_is_still_found() {
        let mut log = sample();
        log.events[1].details = "rewritten".into();
        log.events[1].hash = leaf_hash(&log.events[1].to_leaf().unwrap());
        assert!(!log.verify_integrity());
    }

    #[test]
    fn time_never_goes_back() {
        struct Backwards(std::sync::atomic::AtomicU64);
        impl Clock for Backwards {
            fn now(&self) -> Timestamp {
                Timestamp(self.0.fetch_sub(10, std::sync::atomic::Ordering::Relaxed))
            }
        }
        let mut log = AuditLog::with_clock(Backwards(1000.into()));
        for _ in 0..3 {
            log.log(AuditEventType::KeyUsed, None, None, String::new(), AuditSeverity::Info);
        }
        assert!(log.events().iter().all(|event| event.time == Timestamp(1000)));
        assert!(log.verify_integrity());
    }

    #[test]
    fn overlong_texts_are_cut_and_said_to_be_cut_and_append_refuses_them() {
        let mut log = AuditLog::new();
        let long = "ä".repeat(5000);
        let event = log.log(AuditEventType::KeyUsed, Some(long.clone()), None, long.clone(), AuditSeverity::Info);
        assert!(event.details.len() <= super::super::DETAILS_LIMIT);
        assert!(event.details.ends_with("… [10000 bytes cut]"));
        assert!(event.enclave_id.as_ref().unwrap().len() <= super::super::NAME_LIMIT);
        assert!(log.append(EventDraft::new(AuditEventType::KeyUsed, long)).is_err());
        assert_eq!(log.len(), 1);
        assert!(log.verify_integrity());
    }
}
