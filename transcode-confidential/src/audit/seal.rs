use crate::{
    ids::{Epoch, LeafHash, LogId, RootHash},
    signature::{Domain, PublicKey, Signature, SignatureError, SigningKey},
};

/// The state of a log at some size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogState {
    /// Epoch of the last event.
    pub epoch: Epoch,
    /// Number of events.
    pub size: u64,
    /// RFC 6962 tree head over them.
    pub root: RootHash,
    /// Leaf hash of the last.
    pub last: LeafHash,
}

impl LogState {
    /// `log id (16) || epoch (8) || size (8) || root (32) || last leaf hash (32)`, integers big-endian.
    fn signed_bytes(&self, log_id: LogId) -> [u8; Seal::LEN - Signature::LEN] {
        let mut out = [0; Seal::LEN - Signature::LEN];
        let fields: [&[u8]; 5] = [
            log_id.as_bytes(),
            &self.epoch.0.to_be_bytes(),
            &self.size.to_be_bytes(),
            self.root.as_bytes(),
            self.last.as_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(fields.concat()) {
            *to = from;
        }
        out
    }
}

/// The signature of an epoch key over the state of its log at the end of a batch.
///
/// 160 bytes: `log id (16) || epoch (8) || size (8) || root (32) || last leaf hash (32) || Ed25519 signature (64)`. The
/// signature covers `0xFF "transcode-confidential/seal/v1" 0x00` followed by the first 96 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seal {
    /// The log.
    pub log_id: LogId,
    /// Its state.
    #[serde(flatten)]
    pub state: LogState,
    /// By the key of the state's epoch.
    pub signature: Signature,
}

impl Seal {
    /// Length in bytes.
    pub const LEN: usize = 160;

    /// Seals a state.
    pub fn sign(key: &SigningKey, log_id: LogId, state: LogState) -> Self {
        Self { log_id, state, signature: key.sign(Domain::Seal, &state.signed_bytes(log_id)) }
    }

    /// Verifies the signature.
    ///
    /// # Errors
    /// [`SignatureError`] for every way to fail.
    pub fn verify(&self, epoch_key: &PublicKey) -> Result<(), SignatureError> {
        epoch_key.verify(Domain::Seal, &self.state.signed_bytes(self.log_id), &self.signature)
    }

    /// The 160 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.state.signed_bytes(self.log_id)[..], self.signature.as_bytes()].concat()
    }

    /// Reads 160 bytes; verifies nothing. `None` for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (log_id, rest) = bytes.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (root, rest) = rest.split_first_chunk()?;
        let (last, rest) = rest.split_first_chunk()?;
        Some(Self {
            log_id: LogId::new(*log_id),
            state: LogState {
                epoch: Epoch(u64::from_be_bytes(*epoch)),
                size: u64::from_be_bytes(*size),
                root: RootHash::new(*root),
                last: LeafHash::new(*last),
            },
            signature: Signature::new(rest.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::KeyMaterial;

    #[test]
    fn a_seal_survives_its_bytes_and_no_bit_of_it_can_be_changed() {
        let key = SigningKey::from_seed(&KeyMaterial::from_bytes([3; 32])).unwrap();
        let state = LogState { epoch: Epoch(2), size: 9, root: RootHash::new([4; 32]), last: LeafHash::new([5; 32]) };
        let seal = Seal::sign(&key, LogId::new([6; 16]), state);
        let bytes = seal.to_bytes();
        assert_eq!((bytes.len(), Seal::from_bytes(&bytes)), (Seal::LEN, Some(seal)));
        assert_eq!(seal.verify(&key.public_key()), Ok(()));
        for bit in 0..Seal::LEN * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = Seal::from_bytes(&changed).unwrap();
            assert!(changed.verify(&key.public_key()).is_err(), "bit {bit}");
        }
        assert_eq!(Seal::from_bytes(&bytes[1..]), None);
    }
}
