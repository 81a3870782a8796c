use std::{cell::Cell, collections::BTreeMap};

use thiserror::Error;

use super::{Note, Verdict};
use crate::{
    audit::{
        AuditEvent, LogState, Receipt, ReceiptError,
        checkpoint::{Checkpoint, NoteError, SignedNote, VerifierKey, epoch_key_name, log_verifier_key},
    },
    ids::{Epoch, LogId},
    signature::PublicKey,
};

/// What somebody outside kept of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A checkpoint.
    Checkpoint {
        /// Size and root.
        checkpoint: Checkpoint,
        /// The note, for its signatures.
        note: SignedNote,
    },
    /// A receipt.
    Receipt(Box<Receipt>),
}

/// Why something is no evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EvidenceError {
    /// Not a checkpoint of such a log.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Not a receipt, or one that contradicts itself.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}

impl Evidence {
    /// Reads a checkpoint in its text form.
    ///
    /// # Errors
    /// [`EvidenceError::Note`].
    pub fn checkpoint(text: &str) -> Result<Self, EvidenceError> {
        let note: SignedNote = text.parse()?;
        Ok(Self::Checkpoint { checkpoint: Checkpoint::from_text(note.text())?, note })
    }

    /// Reads a receipt in its binary form and checks its path.
    ///
    /// # Errors
    /// [`EvidenceError::Receipt`].
    pub fn receipt(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let receipt = Receipt::from_bytes(bytes)?;
        receipt.verify_path()?;
        Ok(Self::Receipt(Box::new(receipt)))
    }

    const fn log_id(&self) -> LogId {
        match self {
            Self::Checkpoint { checkpoint, .. } => checkpoint.log_id,
            Self::Receipt(receipt) => receipt.log_id(),
        }
    }

    /// The epoch that signed it.
    fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Checkpoint { checkpoint, note } => {
                let prefix = epoch_key_name(checkpoint.log_id, Epoch(0));
                let prefix = prefix.trim_end_matches('0');
                let names = note.signatures().iter().filter_map(|signature| signature.name.strip_prefix(prefix));
                names.filter_map(|number| number.parse().ok()).map(Epoch).next()
            }
            Self::Receipt(receipt) => Some(receipt.seal.state.epoch),
        }
    }

    const fn size(&self) -> u64 {
        match self {
            Self::Checkpoint { checkpoint, .. } => checkpoint.size,
            Self::Receipt(receipt) => receipt.seal.state.size,
        }
    }
}

/// The evidence against which a log is held while it is walked.
#[derive(Debug, Default)]
pub(super) struct EvidenceBook {
    by_size: BTreeMap<u64, Vec<Evidence>>,
    receipts: BTreeMap<u64, Vec<Receipt>>,
    /// States of fewer events are not seen.
    begins: u64,
    /// What was given up when copies were taken up: size of the copy, the epoch that took it up, greatest epoch that is
    /// known to be lost.
    lost: Vec<(u64, Epoch, Epoch)>,
    lost_any: Cell<bool>,
}

/// A log that is not what the evidence says.
pub(super) struct Contradiction {
    pub(super) verdict: Verdict,
    pub(super) what: String,
}

impl EvidenceBook {
    pub(super) fn add(&mut self, evidence: Evidence) {
        if let Evidence::Receipt(receipt) = &evidence {
            self.receipts.entry(receipt.sequence.0).or_default().push((**receipt).clone());
        }
        self.by_size.entry(evidence.size()).or_default().push(evidence);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_size.is_empty()
    }

    /// The log is verified from here on.
    pub(super) const fn begin_at(&mut self, size: u64) {
        self.begins = size;
    }

    /// A copy of so many events was taken up by this epoch: evidence of more, by an epoch before it or by one that is known to be
    /// lost, speaks of what was given up.
    pub(super) fn lose(&mut self, size: u64, epoch: Epoch, lost_epoch: Epoch) {
        self.lost.push((size, epoch, lost_epoch));
    }

    /// Whether there was evidence of what was given up.
    pub(super) const fn has_lost(&self) -> bool {
        self.lost_any.get()
    }

    /// Whether evidence speaks of a history that was given up, and not of this one. The log key must have signed it all the
    /// same, or an epoch key that is known.
    fn is_lost(&self, evidence: &Evidence, keys: &Keys<'_>) -> bool {
        let Some(epoch) = evidence.epoch() else { return false };
        let ours = matches!(keys.check_epoch(evidence, epoch), Ok(Signed::Verified));
        let lost = self.lost.iter().any(|(size, taken_up, lost_epoch)| {
            evidence.size() > *size && (ours && epoch < *taken_up || !ours && epoch <= *lost_epoch)
        });
        if lost {
            self.lost_any.set(true);
        }
        lost
    }

    /// Checks who signed the evidence of what is not seen. Gives whether there is any.
    pub(super) fn check_unseen(&self, keys: &Keys<'_>) -> Result<bool, Contradiction> {
        let mut unseen = self.by_size.range(..self.begins).flat_map(|(_, evidence)| evidence).peekable();
        let any = unseen.peek().is_some();
        unseen.try_for_each(|evidence| keys.check(evidence).map(|_| ()))?;
        Ok(any)
    }

    /// Whether there is evidence about this size.
    pub(super) fn reaches(&self, size: u64) -> bool {
        self.by_size.contains_key(&size)
    }

    /// Whether there is evidence about any of so many events from this one on, or about the state behind one of them.
    pub(super) fn concerns(&self, first: u64, events: u64) -> bool {
        let behind = first.saturating_add(events);
        self.receipts.range(first..behind).next().is_some()
            || self.by_size.range(first.saturating_add(1)..=behind.max(first.saturating_add(1))).next().is_some()
    }

    /// All evidence must speak of this log.
    pub(super) fn check_log(&self, log_id: LogId) -> Result<(), Contradiction> {
        match self.by_size.values().flatten().find(|evidence| evidence.log_id() != log_id) {
            Some(other) => Err(forked(format!("this is log {log_id}; the evidence is of log {}", other.log_id()))),
            None => Ok(()),
        }
    }

    /// Holds one event against the receipts for its position.
    pub(super) fn check_event(&self, event: &AuditEvent, keys: &Keys<'_>) -> Result<(), Contradiction> {
        let receipts = self.receipts.get(&event.sequence.0).map(Vec::as_slice).unwrap_or_default();
        let other = |receipt: &&Receipt| {
            receipt.leaf != event.hash && !self.is_lost(&Evidence::Receipt(Box::new((*receipt).clone())), keys)
        };
        match receipts.iter().find(other) {
            Some(_) => Err(forked(format!("a receipt is for another event at position {}", event.sequence))),
            None => Ok(()),
        }
    }

    /// Holds the state after an event against the evidence for its size.
    pub(super) fn check_state(&self, state: &LogState, keys: &Keys<'_>) -> Result<(), Contradiction> {
        for evidence in self.by_size.get(&state.size).map(Vec::as_slice).unwrap_or_default() {
            if self.is_lost(evidence, keys) {
                continue;
            }
            keys.check(evidence)?;
            let same = match evidence {
                Evidence::Checkpoint { checkpoint, .. } => checkpoint.root == state.root,
                Evidence::Receipt(receipt) => receipt.seal.state == *state,
            };
            if !same {
                return Err(forked(format!("the evidence of size {} has another root", state.size)));
            }
        }
        Ok(())
    }

    /// Whether there is evidence of more events than the log has.
    pub(super) fn check_end(&self, size: u64, keys: &Keys<'_>, notes: &mut Vec<Note>) -> Result<(), Contradiction> {
        let mut missing = None;
        for evidence in self.by_size.range(size.saturating_add(1)..).flat_map(|(_, evidence)| evidence) {
            if self.is_lost(evidence, keys) {
                continue;
            }
            if keys.check(evidence)? == Signed::Unknown && !notes.contains(&Note::UnknownEpoch) {
                notes.push(Note::UnknownEpoch);
            }
            missing = missing.max(Some(evidence.size()));
        }
        match missing {
            Some(known) => Err(Contradiction {
                verdict: Verdict::Truncated,
                what: format!("the log ends after {size} events; there is evidence of {known}"),
            }),
            None => Ok(()),
        }
    }
}

#[derive(PartialEq, Eq)]
pub(super) enum Signed {
    Verified,
    Unknown,
}

/// The keys that a log has shown so far.
pub(super) struct Keys<'a> {
    pub(super) log_id: LogId,
    pub(super) log_key: Option<PublicKey>,
    pub(super) epochs: &'a BTreeMap<Epoch, PublicKey>,
}

impl Keys<'_> {
    /// Whether the key that this log has for an epoch signed the evidence.
    fn check_epoch(&self, evidence: &Evidence, epoch: Epoch) -> Result<Signed, Contradiction> {
        let Some(key) = self.epochs.get(&epoch) else { return Ok(Signed::Unknown) };
        let signed = match evidence {
            Evidence::Checkpoint { note, .. } => {
                note.verify(&VerifierKey { name: epoch_key_name(self.log_id, epoch), key: *key }).is_ok()
            }
            Evidence::Receipt(receipt) => receipt.verify(key).is_ok(),
        };
        Ok(if signed { Signed::Verified } else { Signed::Unknown })
    }

    fn check(&self, evidence: &Evidence) -> Result<Signed, Contradiction> {
        let verified = match evidence {
            Evidence::Checkpoint { note, .. } => {
                let Some(log_key) = self.log_key else { return Ok(Signed::Unknown) };
                note.verify(&log_verifier_key(self.log_id, log_key)).is_ok()
            }
            Evidence::Receipt(receipt) => {
                let Some(key) = self.epochs.get(&receipt.seal.state.epoch) else { return Ok(Signed::Unknown) };
                receipt.verify(key).is_ok()
            }
        };
        if verified {
            Ok(Signed::Verified)
        } else {
            Err(forked(format!("the evidence of size {} is not signed by this log's key", evidence.size())))
        }
    }
}

const fn forked(what: String) -> Contradiction {
    Contradiction { verdict: Verdict::Forked, what }
}
