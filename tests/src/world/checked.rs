use transcode_confidential::{
    attestation::{ImagePolicy, TrustRoot},
    audit::{
        AuditEvent, AuditEventType, EventBody, Receipt,
        verify::{Evidence, LogVerifier, Report, Verdict},
    },
    fold::{Fold, Snapshot},
    ids::KeyVersion,
    keys::{KeyRecord, KeyTable},
};

use super::caller::key_id;
use crate::segments::Segments;

/// A log after it was verified offline: what it says, and what it comes to.
#[derive(Debug)]
pub struct Checked {
    /// The verifier's report.
    pub report: Report,
    /// Every sealed event.
    pub events: Vec<AuditEvent>,
    /// The key state that they come to.
    pub keys: KeyTable,
}

impl Checked {
    /// Verifies segments, and holds them against receipts and checkpoints. What keys they come to is told only of what was
    /// sealed.
    ///
    /// # Panics
    /// Where the events contradict each other: no enclave writes that.
    pub fn of(
        segments: &Segments,
        (root, image): (TrustRoot, ImagePolicy),
        receipts: &[Receipt],
        checkpoints: &[String],
    ) -> Self {
        let mut verifier = LogVerifier::new(root, image);
        for receipt in receipts {
            verifier.expect(Evidence::Receipt(Box::new(receipt.clone())));
        }
        for checkpoint in checkpoints {
            verifier.expect(Evidence::checkpoint(checkpoint).expect("a checkpoint"));
        }
        let (mut events, mut fold) = (Vec::new(), Fold::new());
        for (name, bytes) in segments {
            verifier.segment(*name);
            for part in bytes.chunks(10_000) {
                verifier.push(part, &mut |sealed| {
                    if let Some(EventBody::Snapshot { .. }) = &sealed.event.body {
                        let parts: Vec<&[u8]> = sealed.attachments.iter().map(|part| &part.payload[..]).collect();
                        let snapshot = Snapshot::decode(&parts).expect("a snapshot");
                        // Whoever begins here knows what whoever began earlier knows.
                        assert!(
                            events.is_empty() || fold == snapshot.fold,
                            "the snapshot at {}",
                            sealed.event.sequence
                        );
                        fold = snapshot.fold;
                    }
                    fold.apply(&sealed.event, &sealed.attachments).expect("events that follow on each other");
                    events.push(sealed.event);
                });
            }
        }
        Self { report: verifier.finish(), events, keys: fold.keys().clone() }
    }

    /// Says that the log is intact.
    ///
    /// # Panics
    /// Where it is not.
    pub fn intact(self) -> Self {
        let Report { verdict, first_bad, .. } = &self.report;
        assert_eq!(*verdict, Verdict::Intact, "{}", first_bad.as_ref().map(ToString::to_string).unwrap_or_default());
        self
    }

    /// Events of a type.
    pub fn of_type(&self, event_type: AuditEventType) -> Vec<&AuditEvent> {
        self.events.iter().filter(|event| event.event_type == event_type).collect()
    }

    /// State of a key.
    pub fn key(&self, id: &str) -> &KeyRecord {
        self.keys.key(&key_id(id)).expect("the key is on the record")
    }

    /// Uses of a version that are on the record.
    pub fn uses(&self, id: &str, version: u32) -> u64 {
        self.key(id).version(KeyVersion(version)).expect("the version is on the record").uses
    }
}
