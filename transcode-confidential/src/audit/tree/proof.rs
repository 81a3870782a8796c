use thiserror::Error;

use super::{Node, node_hash};
use crate::ids::{LeafHash, RootHash};

/// Most hashes in any proof: two for each level of a tree of 2^64 leaves.
pub const PROOF_LIMIT: usize = 128;

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Indexes and sizes that no proof can be about.
    #[error("no such proof: position {position} and size {size}")]
    Range {
        /// Leaf index, or the smaller of two sizes.
        position: u64,
        /// Tree size.
        size: u64,
    },
    /// The number of hashes is not the one that position and size ask for.
    #[error("the proof has the wrong number of hashes")]
    Length,
    /// The hashes lead to another root.
    #[error("the proof leads to another root")]
    Root,
    /// The source of leaf hashes has no such leaf.
    #[error("leaf hash {0} is not stored")]
    Missing(u64),
}

/// Where leaf hashes can be looked up: a slice, or an index over segments.
pub trait HashSource {
    /// The hash of leaf `index`.
    fn leaf(&self, index: u64) -> Option<LeafHash>;

    /// The root of the complete subtree of `2^level` leaves that starts at leaf `start`, where the source has it at hand.
    fn subtree(&self, start: u64, level: u32) -> Option<Node> {
        let _ = (start, level);
        None
    }
}

impl HashSource for [LeafHash] {
    fn leaf(&self, index: u64) -> Option<LeafHash> {
        self.get(usize::try_from(index).ok()?).copied()
    }
}

/// MTH of the leaves `start..end`, RFC 6962 section 2.1.
///
/// # Errors
/// [`ProofError::Missing`] where the source lacks a leaf; [`ProofError::Range`] for an empty range.
pub fn root_of<S: HashSource + ?Sized>(source: &S, start: u64, end: u64) -> Result<Node, ProofError> {
    match end.checked_sub(start) {
        None | Some(0) => Err(ProofError::Range { position: start, size: end }),
        Some(1) => source.leaf(start).map(|leaf| *leaf.as_bytes()).ok_or(ProofError::Missing(start)),
        Some(count) => {
            if count.is_power_of_two()
                && let Some(node) = source.subtree(start, count.trailing_zeros())
            {
                return Ok(node);
            }
            let middle = start + split(count);
            Ok(node_hash(&root_of(source, start, middle)?, &root_of(source, middle, end)?))
        }
    }
}

/// The audit path of leaf `index` in the tree of the first `size` leaves (RFC 6962 section 2.1.1), bottom up.
///
/// # Errors
/// [`ProofError::Range`] where the leaf is not in the tree; [`ProofError::Missing`].
pub fn inclusion_proof<S: HashSource + ?Sized>(source: &S, index: u64, size: u64) -> Result<Vec<Node>, ProofError> {
    if index >= size {
        return Err(ProofError::Range { position: index, size });
    }
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(root_of(source, middle, end)?);
            end = middle;
        } else {
            path.push(root_of(source, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// `PROOF(old, D[new])` of RFC 6962 section 2.1.2. Empty where the sizes are equal or `old` is 0.
///
/// # Errors
/// [`ProofError::Range`] where `old > new`; [`ProofError::Missing`].
pub fn consistency_proof<S: HashSource + ?Sized>(source: &S, old: u64, new: u64) -> Result<Vec<Node>, ProofError> {
    if old > new {
        return Err(ProofError::Range { position: old, size: new });
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let (mut start, mut end) = (0, new);
    let mut proof = Vec::new();
    while old != end {
        let middle = start + split(end - start);
        if old <= middle {
            proof.push(root_of(source, middle, end)?);
            end = middle;
        } else {
            proof.push(root_of(source, start, middle)?);
            start = middle;
        }
    }
    if start != 0 {
        proof.push(root_of(source, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Verifies an audit path (RFC 9162 section 2.1.3.2).
///
/// # Errors
/// [`ProofError`] unless the path leads from the leaf to the root and has exactly the right length.
pub fn verify_inclusion(
    leaf: LeafHash,
    index: u64,
    size: u64,
    path: &[Node],
    root: RootHash,
) -> Result<(), ProofError> {
    let node = root_from_path(leaf, index, size, path)?;
    if node == *root.as_bytes() { Ok(()) } else { Err(ProofError::Root) }
}

/// The root that an audit path leads to, for whoever holds something that says what the root is (RFC 9162 section 2.1.3.2).
///
/// # Errors
/// [`ProofError`] unless the path has exactly the right length.
pub fn root_from_path(leaf: LeafHash, index: u64, size: u64, path: &[Node]) -> Result<Node, ProofError> {
    if index >= size {
        return Err(ProofError::Range { position: index, size });
    }
    let (mut at, mut last, mut node) = (index, size - 1, *leaf.as_bytes());
    for sibling in path {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if at & 1 == 1 || at == last {
            node = node_hash(sibling, &node);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            node = node_hash(&node, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last == 0 { Ok(node) } else { Err(ProofError::Length) }
}

/// Verifies that the tree of `new` leaves begins with the tree of `old` leaves (RFC 9162 section 2.1.4.2). A tree of no
/// leaves is the beginning of every tree.
///
/// # Errors
/// [`ProofError`] unless the proof leads to both roots and has exactly the right length.
pub fn verify_consistency(
    old: u64,
    old_root: RootHash,
    new: u64,
    new_root: RootHash,
    proof: &[Node],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Range { position: old, size: new });
    }
    if old == new || old == 0 {
        let same = old == 0 || old_root == new_root;
        return match (proof.is_empty(), same) {
            (false, _) => Err(ProofError::Length),
            (true, false) => Err(ProofError::Root),
            (true, true) => Ok(()),
        };
    }
    let mut hashes = proof.iter();
    let start = if old.is_power_of_two() { *old_root.as_bytes() } else { *hashes.next().ok_or(ProofError::Length)? };
    let shift = (old - 1).trailing_ones();
    let (mut at, mut last) = ((old - 1) >> shift, (new - 1) >> shift);
    let (mut old_node, mut new_node) = (start, start);
    for hash in hashes {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if at & 1 == 1 || at == last {
            old_node = node_hash(hash, &old_node);
            new_node = node_hash(hash, &new_node);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_node = node_hash(&new_node, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if old_node == *old_root.as_bytes() && new_node == *new_root.as_bytes() { Ok(()) } else { Err(ProofError::Root) }
}

/// The largest power of two smaller than `count`, which is at least 2.
pub(super) const fn split(count: u64) -> u64 {
    1 << (u64::BITS - 1 - (count - 1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{BatchTree, EMPTY_ROOT, Frontier},
        *,
    };
    use crate::audit::leaf_hash;

    fn leaves(count: u64) -> Vec<LeafHash> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    fn root(leaves: &[LeafHash]) -> RootHash {
        RootHash::new(root_of(leaves, 0, leaves.len() as u64).unwrap_or(EMPTY_ROOT))
    }

    #[test]
    fn the_roots_of_the_certificate_transparency_test_data_are_met() {
        // The eight inputs and roots of the original Certificate Transparency reference tests.
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let mut frontier = Frontier::new();
        assert_eq!(frontier.root(), RootHash::new(EMPTY_ROOT));
        let roots: Vec<String> = inputs
            .iter()
            .map(|input| {
                frontier.push(leaf_hash(input));
                frontier.root().to_string()
            })
            .collect();
        assert_eq!(roots[0], "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        assert_eq!(roots[2], "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77");
        assert_eq!(roots[7], "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    #[test]
    fn frontier_batches_and_stored_hashes_agree_for_all_small_sizes() {
        let all = leaves(70);
        for before in 0..=40_usize {
            let mut frontier = Frontier::new();
            all[..before].iter().for_each(|leaf| frontier.push(*leaf));
            for after in before + 1..=70 {
                let batch = BatchTree::new(&frontier, &all[before..after]);
                for index in before..after {
                    let path = inclusion_proof(&all[..after], index as u64, after as u64).unwrap();
                    assert_eq!(batch.path(index as u64).unwrap(), path, "{before} {index} {after}");
                }
                // Leaf `before - 1` may be a peak of size one; anything further left is unknown.
                assert!(before < 2 || batch.path(before as u64 - 2).is_none());
            }
        }
    }

    #[test]
    fn every_inclusion_proof_verifies_and_no_other_place_or_length_does() {
        let all = leaves(33);
        for size in 1..=33_u64 {
            let tree = &all[..size as usize];
            let root = root(tree);
            for index in 0..size {
                let leaf = tree[index as usize];
                let mut path = inclusion_proof(tree, index, size).unwrap();
                assert_eq!(verify_inclusion(leaf, index, size, &path, root), Ok(()));
                for wrong in (0..size).filter(|wrong| *wrong != index) {
                    assert!(verify_inclusion(leaf, wrong, size, &path, root).is_err());
                }
                path.push([0; 32]);
                assert_eq!(verify_inclusion(leaf, index, size, &path, root), Err(ProofError::Length));
                path.truncate(path.len().saturating_sub(2));
                assert!(size == 1 || verify_inclusion(leaf, index, size, &path, root).is_err());
            }
        }
    }

    #[test]
    fn every_consistency_proof_verifies_and_any_changed_hash_does_not() {
        let all = leaves(33);
        for new in 0..=33_u64 {
            for old in 0..=new {
                let (old_root, new_root) = (root(&all[..old as usize]), root(&all[..new as usize]));
                let mut proof = consistency_proof(&all[..], old, new).unwrap();
                assert_eq!(verify_consistency(old, old_root, new, new_root, &proof), Ok(()), "{old} {new}");
                if old > 0 && old < new {
                    let other = RootHash::new([9; 32]);
                    assert!(verify_consistency(old, other, new, new_root, &proof).is_err());
                    assert!(verify_consistency(old, old_root, new, other, &proof).is_err());
                    for at in 0..proof.len() {
                        proof[at][0] ^= 1;
                        assert!(verify_consistency(old, old_root, new, new_root, &proof).is_err());
                        proof[at][0] ^= 1;
                    }
                    proof.pop();
                    assert!(verify_consistency(old, old_root, new, new_root, &proof).is_err());
                }
            }
        }
    }
}
