//! One document for the nonces of many: an NSM makes documents one at a time, and nobody's challenge should have to wait for, or be
//! crowded out by, everybody else's.

use sha2::{Digest as _, Sha256};

use super::Nonce;
use crate::{
    audit::{
        leaf_hash,
        tree::{Node, PROOF_LIMIT, inclusion_proof, root_of, verify_inclusion},
    },
    ids::RootHash,
};

/// The nonces that one document answers, as the leaves of an RFC 6962 tree.
#[derive(Debug, Clone)]
pub struct SharedNonce {
    leaves: Vec<crate::ids::LeafHash>,
    root: Node,
}

/// Where a nonce lies among those that a document answers: `<index>/<size>/<root>/<path>`, hashes in hexadecimal, the path bottom up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoncePath {
    index: u64,
    size: u64,
    root: Node,
    path: Vec<Node>,
}

impl SharedNonce {
    /// These nonces, in this order. `None` for no nonces.
    pub fn of(nonces: &[[u8; Nonce::LEN]]) -> Option<Self> {
        let leaves: Vec<_> = nonces.iter().map(|nonce| leaf_hash(nonce)).collect();
        let root = (!leaves.is_empty()).then(|| root_of(&leaves[..], 0, leaves.len() as u64).ok())??;
        Some(Self { leaves, root })
    }

    /// The nonce of the document: `SHA-256("transcode-confidential/shared-nonce/v1" || 0x00 || size (8) || root)`.
    pub fn nonce(&self) -> [u8; Nonce::LEN] {
        shared(self.leaves.len() as u64, &self.root)
    }

    /// Where a nonce lies.
    pub fn path(&self, index: u64) -> Option<NoncePath> {
        let size = self.leaves.len() as u64;
        let path = inclusion_proof(&self.leaves[..], index, size).ok()?;
        Some(NoncePath { index, size, root: self.root, path })
    }
}

impl NoncePath {
    /// The nonce that a document must carry to answer `nonce`; `None` where the path does not lead from it.
    pub fn answers(&self, nonce: &Nonce) -> Option<Nonce> {
        let leaf = leaf_hash(nonce.as_bytes());
        verify_inclusion(leaf, self.index, self.size, &self.path, RootHash::new(self.root)).ok()?;
        Some(Nonce::derived(shared(self.size, &self.root)))
    }
}

impl std::fmt::Display for NoncePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}/{}", self.index, self.size, hex::encode(self.root), hex::encode(self.path.concat()))
    }
}

/// Not the text of a [`NoncePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a nonce")]
pub struct NoncePathError;

impl std::str::FromStr for NoncePath {
    type Err = NoncePathError;

    fn from_str(text: &str) -> Result<Self, NoncePathError> {
        let mut parts = text.split('/');
        let mut next = || parts.next().ok_or(NoncePathError);
        let index = next()?.parse().map_err(|_| NoncePathError)?;
        let size = next()?.parse().map_err(|_| NoncePathError)?;
        let mut root = Node::default();
        hex::decode_to_slice(next()?, &mut root).map_err(|_| NoncePathError)?;
        let path = next()?;
        let too_long = path.len() > 2 * PROOF_LIMIT * root.len();
        if too_long || parts.next().is_some() {
            return Err(NoncePathError);
        }
        let bytes = hex::decode(path).map_err(|_| NoncePathError)?;
        let (nodes, rest) = bytes.as_chunks();
        if rest.is_empty() { Ok(Self { index, size, root, path: nodes.to_vec() }) } else { Err(NoncePathError) }
    }
}

fn shared(size: u64, root: &Node) -> [u8; Nonce::LEN] {
    let hash = Sha256::new()
        .chain_update(b"transcode-confidential/shared-nonce/v1\0")
        .chain_update(size.to_be_bytes())
        .chain_update(root);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonces(count: u8) -> Vec<[u8; 32]> {
        (0..count).map(|n| [n; 32]).collect()
    }

    #[test]
    fn one_document_answers_every_nonce_of_its_batch_and_no_other() {
        for count in [1, 2, 3, 8, 21] {
            let nonces = nonces(count);
            let batch = SharedNonce::of(&nonces).unwrap();
            for (index, nonce) in (0..).zip(&nonces) {
                let path: NoncePath = batch.path(index).unwrap().to_string().parse().unwrap();
                assert_eq!(path.answers(&Nonce::derived(*nonce)).unwrap().as_bytes(), &batch.nonce());
                assert!(path.answers(&Nonce::derived([0xee; 32])).is_none());
                for other in nonces.iter().filter(|other| *other != nonce) {
                    assert!(path.answers(&Nonce::derived(*other)).is_none());
                }
            }
        }
        assert!(SharedNonce::of(&[]).is_none());
        assert_ne!(SharedNonce::of(&nonces(2)).unwrap().nonce(), SharedNonce::of(&nonces(3)).unwrap().nonce());
    }

    #[test]
    fn a_path_that_is_not_whole_answers_nothing() {
        let batch = SharedNonce::of(&nonces(5)).unwrap();
        let text = batch.path(2).unwrap().to_string();
        for wrong in [&text[..text.len() - 2], &text[1..], "0/1", "", "a/b/c/d", "0/1//", "-1/1/00/"] {
            let read = wrong.parse::<NoncePath>().ok();
            assert!(read.and_then(|path| path.answers(&Nonce::derived([2; 32]))).is_none(), "{wrong}");
        }
        assert!(format!("{text}/").parse::<NoncePath>().is_err());
    }
}
