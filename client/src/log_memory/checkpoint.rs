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

    /// Verifies receipts that the same enclave gave together. A seal that follows on itself is verified once: events of one
    /// batch have the same.
    ///
    /// # Errors
    /// As [`VerifiedCheckpoint::verify_receipt`], for the first receipt that is wrong.
    pub fn verify_receipts<'a>(&self, receipts: impl IntoIterator<Item = &'a Receipt>) -> Result<(), LogError> {
        let mut verified = None;
        for receipt in receipts {
            if verified == Some(receipt.seal) {
                receipt.verify_path()?;
            } else {
                self.verify_receipt(receipt)?;
                verified = Some(receipt.seal);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use transcode_confidential::{
        audit::{AuditEventType, Chain, EventDraft, Seal},
        ids::{LeafHash, Sequence},
        secret::KeyMaterial,
        signature::{Signature, SigningKey},
        time::Timestamp,
    };

    use super::*;

    const LOG: LogId = LogId::new([7; 16]);

    /// Receipts of `batches` batches of three events, and a checkpoint of the same enclave.
    fn receipts(batches: usize) -> (VerifiedCheckpoint, Vec<Receipt>) {
        let key = SigningKey::from_seed(&KeyMaterial::from_bytes([1; 32])).unwrap();
        let mut chain = Chain::new();
        chain.open_epoch(Epoch(1));
        let mut receipts = Vec::new();
        for _ in 0..batches {
            let mut batch = chain.begin_batch();
            for _ in 0..3 {
                chain.append_to(&mut batch, EventDraft::new(AuditEventType::KeyUsed, "used"), Timestamp(5)).unwrap();
            }
            let seal = Seal::sign(&key, LOG, chain.state());
            receipts.extend((batch.first.0..).zip(&batch.hashes).map(|(sequence, leaf)| {
                let path = batch.tree().path(sequence).unwrap();
                Receipt { seal, sequence: Sequence(sequence), leaf: *leaf, path }
            }));
        }
        let (log_key, epoch_key) = (key.public_key(), key.public_key());
        let checkpoint = VerifiedCheckpoint {
            log_id: LOG,
            state: chain.state(),
            note: String::new(),
            log_key,
            epoch_key,
            restored: None,
        };
        (checkpoint, receipts)
    }

    #[test]
    fn receipts_that_share_a_seal_are_each_verified() {
        let (checkpoint, receipts) = receipts(2);
        checkpoint.verify_receipts(&receipts).unwrap();
        checkpoint.verify_receipts([&receipts[0], &receipts[5], &receipts[1]]).unwrap();
        let mut refused = 0;
        for at in 0..receipts.len() {
            let mut refuse = |change: &dyn Fn(&mut Receipt)| {
                let mut changed = receipts.clone();
                change(&mut changed[at]);
                assert!(checkpoint.verify_receipts(&changed).is_err(), "{at}");
                refused += 1;
            };
            refuse(&|receipt| receipt.leaf = LeafHash::new([9; 32]));
            refuse(&|receipt| receipt.path[0][3] ^= 1);
            refuse(&|receipt| receipt.sequence.0 += 1);
            refuse(&|receipt| receipt.seal.state.epoch.0 += 1);
            refuse(&|receipt| receipt.seal.log_id = LogId::new([8; 16]));
            refuse(&|receipt| {
                let mut signature = *receipt.seal.signature.as_bytes();
                signature[9] ^= 1;
                receipt.seal.signature = Signature::new(signature);
            });
        }
        assert_eq!(refused, 36);
    }
}
