//! Inclusion and consistency proofs between any two sizes, ours and those of the crate `tlog_tiles`: each side makes what the
//! other accepts, byte for byte the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail loudly"
)]

use std::sync::LazyLock;

use proptest::prelude::*;
use tlog_tiles::{Hash, HashReader};
use transcode_confidential::{
    audit::{
        leaf_hash,
        tree::{
            ConsistencyBuilder, Frontier, Node, PathBuilder, consistency_proof, inclusion_proof, root_of,
            verify_consistency, verify_inclusion,
        },
    },
    ids::{LeafHash, RootHash},
};

/// A tree as `tlog_tiles` stores one.
struct Theirs(Vec<Hash>);

impl HashReader for &Theirs {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
    }
}

fn leaves(count: u64) -> Vec<LeafHash> {
    (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

fn theirs(leaves: &[LeafHash]) -> Theirs {
    let mut stored = Theirs(Vec::new());
    for (leaf, n) in leaves.iter().zip(0..) {
        let more = tlog_tiles::stored_hashes_for_record_hash(n, Hash(*leaf.as_bytes()), &&stored).unwrap();
        stored.0.extend(more);
    }
    stored
}

fn hashes(nodes: &[Node]) -> Vec<Hash> {
    nodes.iter().map(|node| Hash(*node)).collect()
}

fn root(leaves: &[LeafHash], size: u64) -> RootHash {
    RootHash::new(root_of(leaves, 0, size).unwrap())
}

fn check_inclusion(leaves: &[LeafHash], theirs: &Theirs, index: u64, size: u64) {
    let (root, leaf) = (root(leaves, size), leaves[index as usize]);
    assert_eq!(tlog_tiles::tree_hash(size, &theirs).unwrap(), Hash(*root.as_bytes()));
    let ours = inclusion_proof(leaves, index, size).unwrap();
    assert_eq!(tlog_tiles::prove_record(size, index, &theirs).unwrap(), hashes(&ours), "{index} of {size}");
    tlog_tiles::check_record(&hashes(&ours), size, Hash(*root.as_bytes()), index, Hash(*leaf.as_bytes())).unwrap();
    verify_inclusion(leaf, index, size, &ours, root).unwrap();
}

fn check_consistency(leaves: &[LeafHash], theirs: &Theirs, old: u64, new: u64) {
    let (old_root, new_root) = (root(leaves, old), root(leaves, new));
    let ours = consistency_proof(leaves, old, new).unwrap();
    assert_eq!(tlog_tiles::prove_tree(new, old, &theirs).unwrap(), hashes(&ours), "{old} to {new}");
    let (theirs_new, theirs_old) = (Hash(*new_root.as_bytes()), Hash(*old_root.as_bytes()));
    tlog_tiles::check_tree(&hashes(&ours), new, theirs_new, old, theirs_old).unwrap();
    verify_consistency(old, old_root, new, new_root, &ours).unwrap();
}

#[test]
fn every_inclusion_proof_up_to_64_events_is_theirs_and_accepted_by_both_sides() {
    let leaves = leaves(64);
    let theirs = theirs(&leaves);
    let mut cases = 0;
    for size in 1..=64 {
        for index in 0..size {
            check_inclusion(&leaves, &theirs, index, size);
            cases += 1;
        }
    }
    println!("{cases} inclusion proofs: the same on both sides");
    assert_eq!(cases, 64 * 65 / 2);
}

#[test]
fn every_consistency_proof_up_to_64_events_is_theirs_and_accepted_by_both_sides() {
    let leaves = leaves(64);
    let theirs = theirs(&leaves);
    let mut cases = 0;
    for new in 1..=64 {
        for old in 1..=new {
            check_consistency(&leaves, &theirs, old, new);
            cases += 1;
        }
    }
    println!("{cases} consistency proofs: the same on both sides");
    assert_eq!(cases, 64 * 65 / 2);
}

#[test]
fn every_proof_up_to_33_events_that_is_changed_in_any_way_is_refused_by_both_sides() {
    let leaves = leaves(33);
    let mut cases = 0;
    for size in 2..=33_u64 {
        for index in 0..size {
            let (root_hash, leaf) = (root(&leaves, size), leaves[index as usize]);
            for (what, proof) in spoilt(&inclusion_proof(&leaves[..], index, size).unwrap()) {
                assert!(verify_inclusion(leaf, index, size, &proof, root_hash).is_err(), "{what}");
                let theirs = (Hash(*root_hash.as_bytes()), Hash(*leaf.as_bytes()));
                assert!(tlog_tiles::check_record(&hashes(&proof), size, theirs.0, index, theirs.1).is_err(), "{what}");
                cases += 1;
            }
            let proof = inclusion_proof(&leaves[..], index, size).unwrap();
            let elsewhere = (0..size).filter(|other| *other != index);
            for other in elsewhere {
                assert!(verify_inclusion(leaf, other, size, &proof, root_hash).is_err(), "{index} as {other}");
                cases += 1;
            }
        }
        for old in 1..size {
            let (old_root, new_root) = (root(&leaves, old), root(&leaves, size));
            for (what, proof) in spoilt(&consistency_proof(&leaves[..], old, size).unwrap()) {
                assert!(verify_consistency(old, old_root, size, new_root, &proof).is_err(), "{what}");
                cases += 1;
            }
        }
    }
    println!("{cases} changed proofs: all refused");
}

/// A proof with each node changed, left out and doubled.
fn spoilt(proof: &[Node]) -> Vec<(&'static str, Vec<Node>)> {
    let mut all = vec![("one more", [proof, &[[7; 32]]].concat())];
    for at in 0..proof.len() {
        let mut changed = proof.to_vec();
        changed[at][at % 32] ^= 1;
        let without = [&proof[..at], &proof[at + 1..]].concat();
        let twice = [&proof[..=at], &proof[at..]].concat();
        all.extend([("changed", changed), ("left out", without), ("doubled", twice)]);
    }
    all
}

const MANY: u64 = 5000;
static LEAVES: LazyLock<Vec<LeafHash>> = LazyLock::new(|| leaves(MANY));
static THEIRS: LazyLock<Theirs> = LazyLock::new(|| theirs(&LEAVES));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn proofs_between_any_two_sizes_are_theirs((old, new) in (1..=MANY).prop_flat_map(|new| (1..=new, Just(new)))) {
        check_inclusion(&LEAVES, &THEIRS, old - 1, new);
        check_consistency(&LEAVES, &THEIRS, old, new);
        // Made in passing, without the list.
        let (mut path, mut consistency) =
            (PathBuilder::new(old - 1, new).unwrap(), ConsistencyBuilder::new(old, new).unwrap());
        for leaf in LEAVES.iter() {
            path.push(*leaf);
            consistency.push(*leaf);
        }
        let (leaf, path) = path.finish().unwrap();
        prop_assert_eq!(leaf, LEAVES[old as usize - 1]);
        prop_assert_eq!(path, inclusion_proof(&LEAVES[..], old - 1, new).unwrap());
        prop_assert_eq!(consistency.finish().unwrap(), consistency_proof(&LEAVES[..], old, new).unwrap());
    }

    #[test]
    fn the_path_of_a_last_event_gives_a_frontier_that_goes_on_as_the_log_did(size in 1..MANY) {
        let path = inclusion_proof(&LEAVES[..], size - 1, size).unwrap();
        let mut frontier = Frontier::from_last_path(size, LEAVES[size as usize - 1], &path).unwrap();
        prop_assert_eq!(frontier.root(), root(&LEAVES, size));
        LEAVES[size as usize..].iter().for_each(|leaf| frontier.push(*leaf));
        prop_assert_eq!(frontier.root(), root(&LEAVES, MANY));
    }
}
