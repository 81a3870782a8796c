use transcode_confidential::{
    audit::{
        LogState, Receipt, Seal,
        checkpoint::Checkpoint,
        leaf_hash,
        tree::{EMPTY_ROOT, inclusion_proof, root_of},
    },
    ids::{Epoch, LeafHash, LogId, RootHash, Sequence},
    protocol::api::CheckpointReply,
    secret::KeyMaterial,
    signature::SigningKey,
};

/// A log as a list of leaf hashes, and the keys that sign for it.
#[derive(Clone)]
pub(crate) struct FakeLog {
    pub(crate) log_id: LogId,
    pub(crate) epoch: Epoch,
    log_seed: u8,
    epoch_seed: u8,
    pub(crate) leaves: Vec<LeafHash>,
}

impl FakeLog {
    pub(crate) fn new(id: u8) -> Self {
        let mut log =
            Self { log_id: LogId::new([id; 16]), epoch: Epoch(1), log_seed: id, epoch_seed: 100, leaves: vec![] };
        log.append("genesis");
        log.append("policy");
        log
    }

    pub(crate) fn append(&mut self, event: &str) -> Sequence {
        self.leaves.push(leaf_hash(event.as_bytes()));
        Sequence(self.leaves.len() as u64 - 1)
    }

    /// The enclave was started anew.
    pub(crate) fn open_next_epoch(&mut self) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.epoch_seed += 1;
        self.append(&format!("epoch {}", self.epoch));
    }

    pub(crate) fn with_other_log_key(mut self) -> Self {
        self.log_seed += 1;
        self
    }

    pub(crate) fn with_other_epoch_key(mut self) -> Self {
        self.epoch_seed += 50;
        self
    }

    pub(crate) fn state(&self) -> LogState {
        let root = root_of(&self.leaves[..], 0, self.leaves.len() as u64).unwrap_or(EMPTY_ROOT);
        LogState {
            epoch: self.epoch,
            size: self.leaves.len() as u64,
            root: RootHash::new(root),
            last: *self.leaves.last().unwrap(),
        }
    }

    pub(crate) fn receipt(&self, sequence: Sequence) -> Receipt {
        let state = self.state();
        Receipt {
            seal: Seal::sign(&self.epoch_key(), self.log_id, state),
            sequence,
            leaf: self.leaves[sequence.0 as usize],
            path: inclusion_proof(&self.leaves[..], sequence.0, state.size).unwrap(),
        }
    }

    pub(crate) fn checkpoint(&self) -> CheckpointReply {
        let state = self.state();
        let (log_key, epoch_key) = (self.log_key(), self.epoch_key());
        CheckpointReply {
            log_id: self.log_id,
            state,
            checkpoint: Checkpoint::of(self.log_id, &state).sign(&log_key, self.epoch, &epoch_key).to_string(),
            log_key: log_key.public_key(),
            epoch_key: epoch_key.public_key(),
            restored: None,
        }
    }

    fn log_key(&self) -> SigningKey {
        SigningKey::from_seed(&KeyMaterial::from_bytes([self.log_seed; 32])).unwrap()
    }

    fn epoch_key(&self) -> SigningKey {
        SigningKey::from_seed(&KeyMaterial::from_bytes([self.epoch_seed; 32])).unwrap()
    }
}
