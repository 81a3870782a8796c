//! Which events open an epoch, and which attest it again.

use super::{Checked, LogVerifier, tampered};
use crate::{
    attestation::{PcrIndex, Purpose},
    audit::{
        AuditEvent, AuditEventType, EventBody,
        segment::Record,
        verify::{
            EpochSummary,
            epoch::{verify_head, verify_opening},
        },
    },
    ids::{Epoch, LogId},
};

impl LogVerifier {
    pub(super) fn check_epoch(&mut self, event: &AuditEvent, opens: bool, attachments: &[Record]) -> Checked {
        match (&event.body, opens) {
            (Some(EventBody::EpochOpened(opened)), true) if event.event_type == AuditEventType::EnclaveCreated => {
                if self.opening.is_some() {
                    return Err(tampered("two epochs in one batch"));
                }
                let follows = self.epochs.last().map_or(Epoch(0), |last| last.epoch).next();
                // Numbers are left out where a restore says so, which is known when the batch is sealed.
                self.left_out = follows < Some(event.epoch);
                if follows > Some(event.epoch) {
                    return Err(tampered(format!("epoch {} does not follow on the epoch before", event.epoch)));
                }
                if Some(opened.log_id) != self.log_id || self.log_key.is_some_and(|key| key != opened.log_key) {
                    return Err(tampered("the epoch is of another log"));
                }
                let document =
                    verify_opening(event, opened, attachments, (&self.root, &self.image)).map_err(tampered)?;
                let pcr0 = PcrIndex::new(0).and_then(|index| document.pcrs().get(index));
                self.opening = Some((
                    opened.log_key,
                    EpochSummary {
                        epoch: event.epoch,
                        first: event.sequence,
                        events: 0,
                        opened_at: event.time,
                        enclave_id: document.module_id().to_owned(),
                        image: EpochSummary::label(document.image()),
                        pcr0: pcr0.map(ToString::to_string).unwrap_or_default(),
                        document: document.digest(),
                        epoch_key: opened.epoch_key,
                        reattestations: 0,
                        told: false,
                        restored: false,
                    },
                ));
                Ok(())
            }
            (Some(EventBody::EpochOpened(_)), _) | (_, true) => {
                Err(tampered("an epoch must open with its own EnclaveCreated event, and only then"))
            }
            (Some(EventBody::Attestation { purpose: Purpose::Head, document: Some(_), .. }), false) => {
                let log_id = self.log_id.unwrap_or(LogId::new([0; 16]));
                let sealed = |size, last| self.recent.contains(size, last);
                verify_head(event, log_id, attachments, sealed, (&self.root, &self.image)).map_err(tampered)?;
                self.epochs.iter_mut().rev().take(1).for_each(|epoch| epoch.reattestations += 1);
                Ok(())
            }
            (_, false) => Ok(()),
        }
    }
}
