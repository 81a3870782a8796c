use thiserror::Error;

use super::{
    Seal,
    tree::{Node, PROOF_LIMIT, ProofError, verify_inclusion},
};
use crate::{
    cbor::{CborError, Reader, Writer},
    ids::{LeafHash, LogId, Sequence},
    signature::{PublicKey, SignatureError},
};

/// Proof that an event is on the record: a seal over a tree that contains it, and the path from the event to the root.
///
/// Deterministic CBOR: `{0: 1, 1: seal (160 bytes), 2: sequence, 3: leaf hash (32 bytes), 4: [path node (32 bytes), ...]}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// State of the log at the end of the batch that the event went into.
    pub seal: Seal,
    /// Position of the event.
    pub sequence: Sequence,
    /// Its leaf hash.
    pub leaf: LeafHash,
    /// RFC 6962 audit path from the leaf to the seal's root, bottom up.
    pub path: Vec<Node>,
}

/// Why a receipt proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Not the encoding of a receipt.
    #[error("not a receipt: {0}")]
    Encoding(#[from] CborError),
    /// The path does not lead from the leaf to the sealed root.
    #[error("the receipt's path is wrong: {0}")]
    Path(#[from] ProofError),
    /// The seal is not by the given key.
    #[error("the receipt's seal is wrong: {0}")]
    Seal(#[from] SignatureError),
}

impl Receipt {
    /// Greatest length of an encoded receipt, in bytes.
    pub const LIMIT: usize = 4096;

    /// The log that it speaks of.
    pub const fn log_id(&self) -> LogId {
        self.seal.log_id
    }

    /// Verifies the path and the seal, which must be by `epoch_key`.
    ///
    /// # Errors
    /// [`ReceiptError::Path`] or [`ReceiptError::Seal`].
    pub fn verify(&self, epoch_key: &PublicKey) -> Result<(), ReceiptError> {
        self.verify_path()?;
        Ok(self.seal.verify(epoch_key)?)
    }

    /// Verifies the path alone.
    ///
    /// # Errors
    /// [`ReceiptError::Path`].
    pub fn verify_path(&self) -> Result<(), ReceiptError> {
        let state = &self.seal.state;
        Ok(verify_inclusion(self.leaf, self.sequence.0, state.size, &self.path, state.root)?)
    }

    /// The encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(5).uint(0).uint(1);
        out.uint(1).bytes(&self.seal.to_bytes());
        out.uint(2).uint(self.sequence.0);
        out.uint(3).bytes(self.leaf.as_bytes());
        out.uint(4).array(self.path.len());
        for node in &self.path {
            out.bytes(node);
        }
        out.into_bytes()
    }

    /// Reads what [`Receipt::to_bytes`] writes; verifies nothing.
    ///
    /// # Errors
    /// [`ReceiptError::Encoding`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > Self::LIMIT {
            return Err(CborError::TooLong.into());
        }
        let mut reader = Reader::new(bytes);
        let mut map = reader.int_map(5)?;
        if map.required(0)?.uint()? != 1 {
            return Err(CborError::Range.into());
        }
        let seal = Seal::from_bytes(map.required(1)?.bytes(Seal::LEN)?).ok_or(CborError::Range)?;
        let sequence = Sequence(map.required(2)?.uint()?);
        let leaf = LeafHash::new(map.required(3)?.array_of()?);
        let nodes = map.required(4)?;
        let path = (0..nodes.array(PROOF_LIMIT)?).map(|_| nodes.array_of()).collect::<Result<_, _>>()?;
        map.end()?;
        reader.end()?;
        Ok(Self { seal, sequence, leaf, path })
    }
}
