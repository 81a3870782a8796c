use std::collections::BTreeMap;

use testkit::segments::{Segments, records};
use transcode_confidential::{
    audit::{AuditEvent, EventBody, Receipt, decode_leaf, segment::RecordKind},
    fold::Fold,
    ids::{KeyVersion, LogId},
};

/// What lies on disk, without an auditor: for plays that had no hypervisor to vouch for their epoch.
pub struct Record {
    /// Every sealed event.
    pub events: Vec<AuditEvent>,
    /// What they come to.
    pub fold: Fold,
}

impl Record {
    pub(super) fn of(log_id: LogId, segments: &Segments) -> Self {
        let (mut events, mut fold, mut beside) = (Vec::new(), Fold::new(), Vec::new());
        for (name, bytes) in segments {
            assert_eq!(name.first.0, events.len() as u64, "{log_id}: the segments follow on each other");
            for (_, record) in records(bytes) {
                match record.kind {
                    RecordKind::Entry => {
                        let event = decode_leaf(&record.payload).expect("a leaf");
                        fold.apply(&event, &beside).expect("events that follow on each other");
                        beside.clear();
                        events.push(event);
                    }
                    RecordKind::Seal | RecordKind::Footer | RecordKind::Checkpoint => {}
                    _ => beside.push(record),
                }
            }
        }
        Self { events, fold }
    }

    /// Says that the event of a receipt is there, once.
    ///
    /// # Panics
    /// Where it is not.
    pub fn holds(&self, receipt: &Receipt) -> &AuditEvent {
        receipt.verify_path().expect("a receipt proves something");
        let found: Vec<&AuditEvent> = self.events.iter().filter(|event| event.hash == receipt.leaf).collect();
        assert_eq!(found.len(), 1, "an event that was acknowledged is on the record once");
        assert_eq!(found[0].sequence, receipt.sequence);
        found[0]
    }

    /// Says that the events of these receipts are there, each once.
    ///
    /// # Panics
    /// Where one is not.
    pub fn holds_all(&self, receipts: &[Receipt]) {
        for receipt in receipts {
            let _ = self.holds(receipt);
        }
    }

    /// Counted uses of a key on the record, by version.
    pub fn uses(&self, key: &str) -> BTreeMap<KeyVersion, u64> {
        let mut uses = BTreeMap::new();
        for event in self.events.iter().filter(|event| event.key_id.as_deref() == Some(key)) {
            if let (Some(EventBody::KeyUsed { uses: count, .. }), Some(version)) = (&event.body, event.key_version) {
                *uses.entry(version).or_default() += count;
            }
        }
        uses
    }
}
