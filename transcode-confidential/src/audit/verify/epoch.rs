//! The opening of an epoch, and the documents that follow it.

use crate::{
    attestation::{
        Archived, ImagePolicy, PcrIndex, PcrValue, Purpose, TrustRoot, UnverifiedDocument, UserData, VerifiedDocument,
    },
    audit::{
        AuditEvent, EpochOpened, EpochStatement, LogState,
        segment::{Record, RecordKind},
    },
    ids::{Epoch, LeafHash, LogId, Sequence},
    signature::PublicKey,
};

/// The register that is extended with the log id.
const LOG_PCR: u8 = 16;
/// The register that is extended with epoch, previous head and epoch key.
const EPOCH_PCR: u8 = 17;

/// Verifies that `event` opens its epoch rightfully; gives its attestation document.
pub(super) fn verify_opening(
    event: &AuditEvent,
    opened: &EpochOpened,
    attachments: &[Record],
    (root, image): (&TrustRoot, &ImagePolicy),
) -> Result<VerifiedDocument<Archived>, String> {
    let [document, _log_key] = attachments else { return Err("the epoch's records are missing".into()) };
    let document = archived(document, root, image)?;
    let data = document.require_purpose(Purpose::Epoch).map_err(|refusal| refused(&refusal))?;
    let expected =
        UserData::Epoch { log_id: opened.log_id, epoch: event.epoch, first: event.sequence, previous: event.previous };
    if data != expected {
        return Err("the epoch's attestation document is for another place in a log".into());
    }
    if document.public_key() != Some(opened.epoch_key.to_spki().as_slice()) {
        return Err("the epoch's attestation document is for another key".into());
    }
    for (index, value) in measured(opened.log_id, event.epoch, event.previous, &opened.epoch_key) {
        if document.pcrs().get(index) != Some(&value) {
            return Err(format!("PCR{} of the epoch's attestation document is not locked to this epoch", index.get()));
        }
    }
    EpochStatement::of(opened, event.epoch, event.sequence, event.previous)
        .verify(&opened.log_key, &opened.statement)
        .map_err(|_| "the log key did not sign this epoch".to_owned())?;
    Ok(document)
}

/// PCR16 and PCR17 as the enclave locks them before its first document.
fn measured(log_id: LogId, epoch: Epoch, previous: LeafHash, key: &PublicKey) -> Vec<(PcrIndex, PcrValue)> {
    let zero = PcrValue::new([0; PcrValue::LEN]);
    let contents =
        [(LOG_PCR, log_id.as_bytes().to_vec()), (EPOCH_PCR, EpochStatement::measured_bytes(epoch, previous, key))];
    contents.into_iter().filter_map(|(index, content)| Some((PcrIndex::new(index)?, zero.extended(&content)))).collect()
}

/// Verifies a document over a head that was sealed within the same epoch.
pub(super) fn verify_head(
    event: &AuditEvent,
    log_id: LogId,
    attachments: &[Record],
    sealed: impl Fn(u64, LeafHash) -> bool,
    (root, image): (&TrustRoot, &ImagePolicy),
) -> Result<(), String> {
    let [document] = attachments else { return Err("the attestation document is missing".into()) };
    let document = archived(document, root, image)?;
    let data = document.require_purpose(Purpose::Head).map_err(|refusal| refused(&refusal))?;
    match data {
        UserData::Head { log_id: log, epoch, size, last }
            if log == log_id && epoch == event.epoch && Sequence(size) <= event.sequence && sealed(size, last) =>
        {
            Ok(())
        }
        _ => Err("the attestation document is for another head".into()),
    }
}

fn archived(record: &Record, root: &TrustRoot, image: &ImagePolicy) -> Result<VerifiedDocument<Archived>, String> {
    if record.kind != RecordKind::Attestation {
        return Err("a record of another kind stands where an attestation document is due".into());
    }
    let document = UnverifiedDocument::parse(&record.payload).map_err(|refusal| refused(&refusal))?;
    document.verify_archived(root, image).map_err(|refusal| refused(&refusal))
}

fn refused(refusal: &crate::attestation::Refusal) -> String {
    format!("attestation document refused ({}): {refusal}", refusal.reason())
}

/// The states that the last seals signed, newest last.
#[derive(Debug, Default)]
pub(super) struct RecentSeals(std::collections::VecDeque<(u64, LeafHash)>);

impl RecentSeals {
    /// How far back a re-attestation may look: far more seals than are written while the NSM makes a document.
    const KEPT: usize = 65_536;

    pub(super) fn push(&mut self, state: &LogState) {
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back((state.size, state.last));
    }

    pub(super) fn contains(&self, size: u64, last: LeafHash) -> bool {
        self.0.binary_search_by_key(&size, |(size, _)| *size).is_ok_and(|at| self.0.get(at) == Some(&(size, last)))
    }
}
