//! COSE receipts: inclusion in a log's tree, signed by the log key, for verifiers of RFC 9942 (verifiable data structure
//! `RFC9162_SHA256`).
//!
//! A tagged COSE_Sign1 whose payload is the root, detached: whoever verifies computes it from the entry and the path. The entry
//! is the leaf, so the hash to start from is that of [`super::leaf_hash`].

use thiserror::Error;

use super::tree::{Node, PROOF_LIMIT, ProofError, root_from_path};
use crate::{
    cbor::{CborError, Reader, Writer},
    ids::{LeafHash, LogId, RootHash, Sequence},
    signature::{PublicKey, Signature, SigningKey},
};

/// CBOR tag 18, array of four: the start of a tagged COSE_Sign1.
const COSE_SIGN1: [u8; 2] = [0xd2, 0x84];
/// `{396: {-1: [`: verifiable data proofs, of inclusion, one.
const ONE_INCLUSION_PROOF: [u8; 7] = [0xa1, 0x19, 0x01, 0x8c, 0xa1, 0x20, 0x81];
/// Null: the payload is detached.
const DETACHED: [u8; 1] = [0xf6];
/// Greatest length of an inclusion proof, in bytes.
const INCLUSION_LIMIT: usize = PROOF_LIMIT * 34 + 32;

/// Inclusion of one event in the tree of one size, under the signature of the log key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoseReceipt {
    /// The log; the key identifier in the protected header.
    pub log_id: LogId,
    /// The tree size.
    pub size: u64,
    /// Position of the event.
    pub event: Sequence,
    /// The audit path, bottom up.
    pub path: Vec<Node>,
    /// By the log key, over the root.
    pub signature: Signature,
}

/// Why a COSE receipt proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CoseReceiptError {
    /// Not such a receipt, or not in its one encoding.
    #[error("not a COSE receipt: {0}")]
    Encoding(#[from] CborError),
    /// It is for another event.
    #[error("the receipt is for event {0}")]
    Event(Sequence),
    /// No such path.
    #[error(transparent)]
    Path(#[from] ProofError),
    /// The log key did not sign the root that the path leads to.
    #[error("the log key did not sign the root that the path leads to")]
    Signature,
}

impl CoseReceipt {
    /// Signs the root of the tree of `size` leaves. Whether `path` leads there is for the verifier to find out.
    pub fn sign(
        log_key: &SigningKey,
        log_id: LogId,
        (size, root): (u64, RootHash),
        event: Sequence,
        path: Vec<Node>,
    ) -> Self {
        let signature = log_key.sign_bare(&sig_structure(log_id, root.as_bytes()));
        Self { log_id, size, event, path, signature }
    }

    /// Verifies that the event with this leaf hash is in a tree whose root the log key signed.
    ///
    /// # Errors
    /// [`CoseReceiptError`].
    pub fn verify(&self, log_key: &PublicKey, event: Sequence, leaf: LeafHash) -> Result<(), CoseReceiptError> {
        if event != self.event {
            return Err(CoseReceiptError::Event(self.event));
        }
        let root = root_from_path(leaf, self.event.0, self.size, &self.path)?;
        let signed = log_key.verify_bare(&sig_structure(self.log_id, &root), &self.signature);
        signed.map_err(|_| CoseReceiptError::Signature)
    }

    /// The encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut proof = Writer::new();
        proof.array(3).uint(self.size).uint(self.event.0).array(self.path.len());
        self.path.iter().for_each(|node| {
            proof.bytes(node);
        });
        let mut out = Writer::after(COSE_SIGN1.to_vec());
        out.bytes(&protected(self.log_id)).raw(&ONE_INCLUSION_PROOF).bytes(proof.as_slice()).raw(&DETACHED);
        out.bytes(self.signature.as_bytes());
        out.into_bytes()
    }

    /// Reads what [`CoseReceipt::to_bytes`] writes, and nothing else; verifies nothing.
    ///
    /// # Errors
    /// [`CoseReceiptError::Encoding`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CoseReceiptError> {
        let mut reader = Reader::new(bytes.strip_prefix(&COSE_SIGN1).ok_or(CborError::Type)?);
        let header = reader.bytes(64)?;
        let rest = reader.remaining().strip_prefix(&ONE_INCLUSION_PROOF).ok_or(CborError::Type)?;
        let mut reader = Reader::new(rest);
        let proof = reader.bytes(INCLUSION_LIMIT)?;
        let mut reader = Reader::new(reader.remaining().strip_prefix(&DETACHED).ok_or(CborError::Type)?);
        let signature = Signature::new(reader.array_of()?);
        reader.end()?;
        let log_id = header.strip_prefix(&PROTECTED_START).and_then(|rest| rest.first_chunk());
        let log_id = LogId::new(*log_id.ok_or(CborError::Type)?);
        if protected(log_id) != header {
            return Err(CborError::Range.into());
        }
        let mut reader = Reader::new(proof);
        if reader.array(3)? != 3 {
            return Err(CborError::Range.into());
        }
        let (size, event) = (reader.uint()?, Sequence(reader.uint()?));
        let path = (0..reader.array(PROOF_LIMIT)?).map(|_| reader.array_of()).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { log_id, size, event, path, signature })
    }
}

/// `{1: -8, 4: log id (16 bytes), 395: 1}` up to the log id: algorithm EdDSA, key identifier.
const PROTECTED_START: [u8; 5] = [0xa3, 0x01, 0x27, 0x04, 0x50];
/// `395: 1`: verifiable data structure `RFC9162_SHA256`.
const PROTECTED_END: [u8; 4] = [0x19, 0x01, 0x8b, 0x01];

fn protected(log_id: LogId) -> Vec<u8> {
    [&PROTECTED_START[..], log_id.as_bytes(), &PROTECTED_END].concat()
}

/// RFC 9052 section 4.4. Its first byte, 0x84, starts neither a text nor any other of our signing domains.
fn sig_structure(log_id: LogId, root: &Node) -> Vec<u8> {
    let mut out = Writer::new();
    out.array(4).text("Signature1").bytes(&protected(log_id)).bytes(&[]).bytes(root);
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{
            leaf_hash,
            tree::{inclusion_proof, root_of},
        },
        secret::KeyMaterial,
    };

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&KeyMaterial::from_bytes([seed; 32])).unwrap()
    }

    fn leaves() -> Vec<LeafHash> {
        (0..11_u64).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    fn receipt(event: u64, size: u64) -> CoseReceipt {
        let leaves = leaves();
        let root = RootHash::new(root_of(&leaves[..], 0, size).unwrap());
        let path = inclusion_proof(&leaves[..], event, size).unwrap();
        CoseReceipt::sign(&key(1), LogId::new([7; 16]), (size, root), Sequence(event), path)
    }

    #[test]
    fn a_receipt_of_every_event_in_every_tree_survives_its_bytes_and_verifies() {
        for size in 1..=11 {
            for event in 0..size {
                let receipt = CoseReceipt::from_bytes(&receipt(event, size).to_bytes()).unwrap();
                let leaf = leaves()[event as usize];
                assert_eq!(receipt.verify(&key(1).public_key(), Sequence(event), leaf), Ok(()));
                let other = receipt.verify(&key(2).public_key(), Sequence(event), leaf);
                assert_eq!(other, Err(CoseReceiptError::Signature));
                assert!(receipt.verify(&key(1).public_key(), Sequence(event + 1), leaf).is_err());
                assert!(receipt.verify(&key(1).public_key(), Sequence(event), leaf_hash(b"x")).is_err());
            }
        }
    }

    #[test]
    fn no_changed_byte_and_no_prefix_of_a_receipt_verifies() {
        let bytes = receipt(4, 11).to_bytes();
        let verifies = |bytes: &[u8]| {
            let receipt = CoseReceipt::from_bytes(bytes);
            receipt.is_ok_and(|receipt| {
                receipt.verify(&key(1).public_key(), Sequence(4), leaves()[4]).is_ok() && receipt.size == 11
            })
        };
        assert!(verifies(&bytes));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(!verifies(&changed), "byte {at}");
            assert!(!verifies(&bytes[..at]));
        }
    }
}
