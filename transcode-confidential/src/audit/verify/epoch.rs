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

/// Where an epoch opens.
pub(super) struct Opening {
    pub(super) epoch: Epoch,
    pub(super) first: Sequence,
    pub(super) previous: LeafHash,
}

impl Opening {
    /// Verifies that an epoch opens here rightfully; gives its attestation document.
    pub(super) fn verify(
        &self,
        opened: &EpochOpened,
        document: &[u8],
        (root, image): (&TrustRoot, &ImagePolicy),
    ) -> Result<VerifiedDocument<Archived>, String> {
        let Self { epoch, first, previous } = *self;
        let document = archived(document, root, image)?;
        let data = document.require_purpose(Purpose::Epoch).map_err(|refusal| refused(&refusal))?;
        if data != (UserData::Epoch { log_id: opened.log_id, epoch, first, previous }) {
            return Err("the epoch's attestation document is for another place in a log".into());
        }
        if document.public_key() != Some(opened.epoch_key.to_spki().as_slice()) {
            return Err("the epoch's attestation document is for another key".into());
        }
        for (index, value) in measured(opened.log_id, epoch, previous, &opened.epoch_key) {
            if document.pcrs().get(index) != Some(&value) {
                return Err(format!(
                    "PCR{} of the epoch's attestation document is not locked to this epoch",
                    index.get()
                ));
            }
        }
        EpochStatement::of(opened, epoch, first, previous)
            .verify(&opened.log_key, &opened.statement)
            .map_err(|_| "the log key did not sign this epoch".to_owned())?;
        Ok(document)
    }
}

/// Verifies that `event` opens its epoch rightfully; gives its attestation document.
pub(super) fn verify_opening(
    event: &AuditEvent,
    opened: &EpochOpened,
    attachments: &[Record],
    trusted: (&TrustRoot, &ImagePolicy),
) -> Result<VerifiedDocument<Archived>, String> {
    let [document, _log_key] = attachments else { return Err("the epoch's records are missing".into()) };
    Opening::from(event).verify(opened, document_of(document)?, trusted)
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
    let document = archived(document_of(document)?, root, image)?;
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

fn document_of(record: &Record) -> Result<&[u8], String> {
    if record.kind != RecordKind::Attestation {
        return Err("a record of another kind stands where an attestation document is due".into());
    }
    Ok(&record.payload)
}

fn archived(document: &[u8], root: &TrustRoot, image: &ImagePolicy) -> Result<VerifiedDocument<Archived>, String> {
    let document = UnverifiedDocument::parse(document).map_err(|refusal| refused(&refusal))?;
    document.verify_archived(root, image).map_err(|refusal| refused(&refusal))
}

fn refused(refusal: &crate::attestation::Refusal) -> String {
    format!("attestation document refused ({}): {refusal}", refusal.reason())
}

/// The states that the last seals signed, newest last.
#[derive(Debug, Default)]
pub(super) struct RecentSeals {
    seals: std::collections::VecDeque<(u64, LeafHash)>,
    /// Seals of fewer events lie before the beginning of what is verified, and are not known.
    begins: u64,
}

impl RecentSeals {
    /// How far back a re-attestation may look: far more seals than are written while the NSM makes a document.
    const KEPT: usize = 65_536;

    /// The log is verified from here on.
    pub(super) fn begin_at(&mut self, size: u64, last: LeafHash) {
        self.begins = size;
        self.seals.push_back((size, last));
    }

    pub(super) fn push(&mut self, state: &LogState) {
        if self.seals.len() == Self::KEPT {
            self.seals.pop_front();
        }
        self.seals.push_back((state.size, state.last));
    }

    /// Whether a seal of this state is known, or is one that cannot be.
    pub(super) fn contains(&self, size: u64, last: LeafHash) -> bool {
        let found = self.seals.binary_search_by_key(&size, |(size, _)| *size);
        size < self.begins || found.is_ok_and(|at| self.seals.get(at) == Some(&(size, last)))
    }
}
