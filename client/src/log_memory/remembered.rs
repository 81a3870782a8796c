use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use transcode_confidential::{
    audit::{
        LogState, Seal,
        tree::{Node, ProofError, verify_consistency},
    },
    ids::{LogId, RootHash},
    signature::PublicKey,
};

use super::{LogError, VerifiedCheckpoint};

/// The newest that is known of a log: a verified checkpoint and, where a receipt went beyond it, that receipt's seal.
///
/// Both are kept until a newer checkpoint is proven to continue both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    log_id: LogId,
    log_key: PublicKey,
    epoch_key: PublicKey,
    state: LogState,
    checkpoint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beyond: Option<Seal>,
}

/// A proof that has to be asked for: that the log of `new` events begins with the log of `old` events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsistencyNeed {
    /// Number of events of the earlier state.
    pub old: u64,
    /// Its root.
    pub old_root: RootHash,
    /// Number of events of the later state.
    pub new: u64,
    /// Its root.
    pub new_root: RootHash,
}

impl From<VerifiedCheckpoint> for Remembered {
    fn from(checkpoint: VerifiedCheckpoint) -> Self {
        let VerifiedCheckpoint { log_id, state, note, log_key, epoch_key, restored: _ } = checkpoint;
        Self { log_id, log_key, epoch_key, state, checkpoint: note, beyond: None }
    }
}

impl Remembered {
    /// The log.
    pub const fn log_id(&self) -> LogId {
        self.log_id
    }

    /// The state of the checkpoint.
    pub const fn state(&self) -> &LogState {
        &self.state
    }

    /// The newest state: the seal's, where there is one.
    pub fn newest(&self) -> &LogState {
        self.beyond.as_ref().map_or(&self.state, |seal| &seal.state)
    }

    /// The checkpoint, a C2SP signed note.
    pub fn checkpoint(&self) -> &str {
        &self.checkpoint
    }

    /// What must be proven before `next` may be believed.
    ///
    /// # Errors
    /// [`LogError::LogKeyChanged`], [`LogError::WentBack`]; [`LogError::Forked`] where no proof could help.
    pub fn needs(&self, next: &VerifiedCheckpoint) -> Result<Vec<ConsistencyNeed>, LogError> {
        if next.log_key != self.log_key {
            return Err(LogError::LogKeyChanged { log_id: self.log_id });
        }
        let newest = self.newest();
        // A checkpoint may be a little older than the newest receipt of the same epoch: both are the one enclave's word.
        let same_epoch = next.state.epoch == self.state.epoch;
        let least = if same_epoch { &self.state } else { newest };
        if next.state.size < least.size || next.state.epoch < self.state.epoch {
            return Err(LogError::WentBack {
                log_id: self.log_id,
                remembered: least.size,
                remembered_epoch: self.state.epoch,
                shown: next.state.size,
                shown_epoch: next.state.epoch,
            });
        }
        if same_epoch && next.epoch_key != self.epoch_key {
            // Two enclaves that opened the same epoch: both cannot be the one line of history.
            return Err(self.forked(next.state.size, ProofError::Root));
        }
        let mut needs = Vec::new();
        for known in [Some(&self.state), self.beyond.as_ref().map(|seal| &seal.state)].into_iter().flatten() {
            let (old, new) = if known.size <= next.state.size { (known, &next.state) } else { (&next.state, known) };
            let need = ConsistencyNeed { old: old.size, old_root: old.root, new: new.size, new_root: new.root };
            if old.size == new.size {
                self.check(&need, &[])?;
            } else {
                needs.push(need);
            }
        }
        Ok(needs)
    }

    /// What must be proven where `next` does not continue what is remembered, because the policy authority had the log taken up
    /// from an older copy: that it continues that copy. `None` where no restore explains the contradiction.
    pub fn restored_needs(&self, next: &VerifiedCheckpoint) -> Option<ConsistencyNeed> {
        let restored = next.restored().filter(|restored| {
            let of_epoch = self.state.epoch < restored.epoch || self.epoch_key != next.epoch_key;
            next.log_key == self.log_key
                && of_epoch
                && self.newest().size > restored.size
                && restored.size <= restored.sequence.0
                && restored.sequence.0 < next.state.size
        })?;
        Some(ConsistencyNeed {
            old: restored.size,
            old_root: restored.root,
            new: next.state.size,
            new_root: next.state.root,
        })
    }

    /// Checks a proof.
    ///
    /// # Errors
    /// [`LogError::Forked`].
    pub fn check(&self, need: &ConsistencyNeed, proof: &[Node]) -> Result<(), LogError> {
        verify_consistency(need.old, need.old_root, need.new, need.new_root, proof).map_err(|reason| LogError::Forked {
            log_id: self.log_id,
            remembered: need.old,
            shown: need.new,
            reason,
        })
    }

    /// Takes over a checkpoint for which everything in [`Remembered::needs`] was proven.
    #[must_use]
    pub fn advanced_to(&self, next: VerifiedCheckpoint) -> Self {
        let beyond =
            self.beyond.filter(|seal| seal.state.size > next.state.size && seal.state.epoch == next.state.epoch);
        Self { beyond, ..next.into() }
    }

    /// Takes over a checkpoint by the same enclave, in the same epoch, if it is newer: what one enclave signs is one line.
    /// `None` where it is another enclave's.
    ///
    /// # Errors
    /// [`LogError::Forked`] where the same number of events has another root.
    pub fn merged_with(&self, next: VerifiedCheckpoint) -> Result<Option<Self>, LogError> {
        if (next.log_key, next.epoch_key, next.state.epoch) != (self.log_key, self.epoch_key, self.state.epoch) {
            return Ok(None);
        }
        Ok(Some(match next.state.size.cmp(&self.state.size) {
            Ordering::Greater => self.advanced_to(next),
            Ordering::Equal if next.state.root != self.state.root => {
                return Err(self.forked(next.state.size, ProofError::Root));
            }
            _ => self.clone(),
        }))
    }

    /// Takes over the seal of a receipt that was verified under this epoch's key. `None` where that is no news.
    ///
    /// # Errors
    /// [`LogError::Forked`] where the same number of events has another root.
    pub fn advanced_by(&self, seal: &Seal) -> Result<Option<Self>, LogError> {
        let newest = self.newest();
        if seal.log_id != self.log_id || seal.state.epoch != self.state.epoch || seal.state.size < newest.size {
            return Ok(None);
        }
        if seal.state.size == newest.size {
            let need = ConsistencyNeed {
                old: newest.size,
                old_root: newest.root,
                new: seal.state.size,
                new_root: seal.state.root,
            };
            return self.check(&need, &[]).map(|()| None);
        }
        Ok(Some(Self { beyond: Some(*seal), ..self.clone() }))
    }

    fn forked(&self, shown: u64, reason: ProofError) -> LogError {
        LogError::Forked { log_id: self.log_id, remembered: self.newest().size, shown, reason }
    }
}
