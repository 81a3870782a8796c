//! The RFC 6962 Merkle tree: frontier, root, inclusion and consistency proofs.
//!
//! Interior nodes are `SHA-256(0x01 || left || right)`; leaves are [`crate::audit::leaf_hash`]es. The writer keeps a
//! [`Frontier`] of at most 64 hashes, whatever the size of the log; proofs are computed from stored leaf hashes by whoever
//! has those, and verify themselves.

mod batch;
mod frontier;
mod path;
mod proof;

pub use batch::BatchTree;
pub use frontier::Frontier;
pub use path::{ConsistencyBuilder, PathBuilder};
pub use proof::{
    HashSource, PROOF_LIMIT, ProofError, consistency_proof, inclusion_proof, root_from_path, root_of,
    verify_consistency, verify_inclusion,
};

use super::tagged::tagged_sha256;

/// A node of the tree: a leaf hash or the hash of two nodes.
pub type Node = [u8; 32];

/// `SHA-256("")`: the root of no leaves (RFC 6962 section 2.1).
pub const EMPTY_ROOT: Node = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// `SHA-256(0x01 || left || right)`, RFC 6962 section 2.1.
pub fn node_hash(left: &Node, right: &Node) -> Node {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    tagged_sha256(0x01, &both)
}
