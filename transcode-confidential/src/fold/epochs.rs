use std::sync::Arc;

use super::{Fold, remember};
use crate::{
    attestation::{PcrIndex, PcrValue, UnverifiedDocument},
    audit::{AuditEvent, EpochOpened, segment::Record},
    ids::{Digest, Epoch, LeafHash, Sequence},
    signature::PublicKey,
    time::Timestamp,
};

/// Most earlier epochs that are remembered.
const LIMIT: usize = 16_384;

/// The epoch that writes the log now, with all that it takes to verify its opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenEpoch {
    /// Its number.
    pub epoch: Epoch,
    /// Position of its first event.
    pub first: Sequence,
    /// Leaf hash of the event before.
    pub previous: LeafHash,
    /// Time of its first event.
    pub opened_at: Timestamp,
    /// The enclave, as its NSM names it.
    pub enclave_id: Option<String>,
    /// What the first event binds together.
    pub opened: EpochOpened,
    /// The attestation document over its key.
    pub document: Arc<[u8]>,
    /// The wrapped log key.
    pub log_key_record: Arc<[u8]>,
}

/// An earlier epoch, as far as it matters to those after it. Nothing here proves itself: whoever needs proof keeps the
/// segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastEpoch {
    /// Its number.
    pub epoch: Epoch,
    /// Position of its first event.
    pub first: Sequence,
    /// Time of its first event.
    pub opened_at: Timestamp,
    /// The enclave, as its NSM named it.
    pub enclave_id: Option<String>,
    /// PCR0 of its attestation document.
    pub pcr0: Option<PcrValue>,
    /// SHA-256 of its attestation document.
    pub document: Digest,
    /// The key that signed its seals.
    pub epoch_key: PublicKey,
}

impl Fold {
    pub(super) fn open_epoch(&mut self, event: &AuditEvent, opened: &EpochOpened, beside: &[Record]) {
        let payload = |at: usize| beside.get(at).map_or_else(Arc::default, |record| record.payload.as_slice().into());
        let open = OpenEpoch {
            epoch: event.epoch,
            first: event.sequence,
            previous: event.previous,
            opened_at: event.time,
            enclave_id: event.enclave_id.clone(),
            opened: opened.clone(),
            document: payload(0),
            log_key_record: payload(1),
        };
        if let Some(before) = self.epoch.replace(open) {
            remember(&mut self.past_epochs, before.into(), LIMIT);
        }
    }
}

impl From<OpenEpoch> for PastEpoch {
    fn from(open: OpenEpoch) -> Self {
        let document = UnverifiedDocument::parse(&open.document).ok();
        let pcr0 = document.and_then(|document| document.unverified_claims().pcrs().get(PcrIndex::new(0)?).copied());
        Self {
            epoch: open.epoch,
            first: open.first,
            opened_at: open.opened_at,
            enclave_id: open.enclave_id,
            pcr0,
            document: open.opened.document,
            epoch_key: open.opened.epoch_key,
        }
    }
}
