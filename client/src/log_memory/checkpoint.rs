use transcode_confidential::{
    audit::{
        LogState, Receipt,
        checkpoint::{Checkpoint, SignedNote, VerifierKey, epoch_key_name, log_verifier_key},
    },
    ids::{Epoch, LogId},
    protocol::api::{CheckpointReply, Restored},
    signature::PublicKey,
};

use super::LogError;

/// A checkpoint that log key and epoch key signed, of the log and epoch that the enclave attested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    pub(super) log_id: LogId,
    pub(super) state: LogState,
    pub(super) note: String,
    pub(super) log_key: PublicKey,
    pub(super) epoch_key: PublicKey,
    pub(super) restored: Option<Restored>,
}

impl VerifiedCheckpoint {
    /// Verifies a reply over an attested connection. The keys in it are believed because the enclave was.
    ///
    /// # Errors
    /// [`LogError::NotAttested`], [`LogError::Checkpoint`], [`LogError::CheckpointDiffers`].
    pub fn verify(reply: CheckpointReply, log_id: LogId, epoch: Epoch) -> Result<Self, LogError> {
        if (reply.log_id, reply.state.epoch) != (log_id, epoch) {
            return Err(LogError::NotAttested {
                attested: log_id,
                attested_epoch: epoch,
                shown: reply.log_id,
                shown_epoch: reply.state.epoch,
            });
        }
        let note: SignedNote = reply.checkpoint.parse()?;
        note.verify(&log_verifier_key(log_id, reply.log_key))?;
        note.verify(&VerifierKey { name: epoch_key_name(log_id, epoch), key: reply.epoch_key })?;
        if Checkpoint::from_text(note.text())? != Checkpoint::of(log_id, &reply.state) {
            return Err(LogError::CheckpointDiffers);
        }
        let CheckpointReply { state, checkpoint, log_key, epoch_key, restored, .. } = reply;
        Ok(Self { log_id, state, note: checkpoint, log_key, epoch_key, restored })
    }

    /// The log.
    pub const fn log_id(&self) -> LogId {
        self.log_id
    }

    /// Its state.
    pub const fn state(&self) -> &LogState {
        &self.state
    }

    /// The newest copy that the log was taken up again from, as the attested enclave says: the policy authority ordered it.
    pub const fn restored(&self) -> Option<&Restored> {
        self.restored.as_ref()
    }

    /// The C2SP signed note.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The key that lives as long as the log.
    pub const fn log_key(&self) -> PublicKey {
        self.log_key
    }

    /// The key of the enclave's epoch.
    pub const fn epoch_key(&self) -> PublicKey {
        self.epoch_key
    }

    /// Verifies a receipt that the same enclave gave.
    ///
    /// # Errors
    /// [`LogError::ForeignReceipt`], [`LogError::Receipt`].
    pub fn verify_receipt(&self, receipt: &Receipt) -> Result<(), LogError> {
        let (log_id, epoch) = (receipt.log_id(), receipt.seal.state.epoch);
        if (log_id, epoch) != (self.log_id, self.state.epoch) {
            return Err(LogError::ForeignReceipt {
                expected: self.log_id,
                expected_epoch: self.state.epoch,
                receipt: log_id,
                receipt_epoch: epoch,
            });
        }
        Ok(receipt.verify(&self.epoch_key)?)
    }
}
