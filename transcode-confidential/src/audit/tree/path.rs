use super::{Frontier, Node, proof::split};
use crate::ids::LeafHash;

/// Roots of disjoint ranges of leaves, taken while the leaves of a tree pass by, oldest first: memory is logarithmic in the
/// size of the tree.
#[derive(Debug)]
struct RangeRoots {
    next: u64,
    size: u64,
    ranges: Vec<(u64, u64, Frontier)>,
}

impl RangeRoots {
    const fn of_tree(size: u64) -> Self {
        Self { next: 0, size, ranges: Vec::new() }
    }

    fn add(&mut self, start: u64, end: u64) {
        self.ranges.push((start, end, Frontier::new()));
    }

    /// Begins behind the leaves of `before`, of which nothing else is known. `false` where a root that is needed lies inside
    /// one of its subtrees: then the proof is of a leaf before, or of a tree that ends there.
    fn begin_behind(&mut self, before: &Frontier) -> bool {
        self.next = before.size();
        for (start, end, under) in &mut self.ranges {
            let size = before.size().min(*end).saturating_sub(*start);
            let (mut at, mut inside) = (0, Vec::new());
            for (level, peak) in
                (0..u64::BITS).rev().filter(|level| before.size() >> level & 1 == 1).zip(before.peaks())
            {
                let next = at + (1 << level);
                if at >= *start && next <= *end {
                    inside.push(*peak);
                }
                at = next;
            }
            match Frontier::from_parts(size, inside) {
                Some(known) => *under = known,
                None => return false,
            }
        }
        true
    }

    /// Takes the next leaf and gives its position. Leaves behind the tree are ignored.
    fn push(&mut self, leaf: LeafHash) -> u64 {
        let at = self.next;
        self.next = at.saturating_add(1);
        if let Some((_, _, under)) = self.ranges.iter_mut().find(|(start, end, _)| (*start..*end).contains(&at)) {
            under.push(leaf);
        }
        at
    }

    /// The roots, the last range first; `None` where fewer leaves came than the tree has.
    fn finish(self) -> Option<Vec<Node>> {
        let complete = self.next >= self.size;
        complete.then(|| self.ranges.iter().rev().map(|(_, _, under)| *under.root().as_bytes()).collect())
    }
}

/// Builds an audit path while the leaves of a tree pass by, oldest first.
#[derive(Debug)]
pub struct PathBuilder {
    index: u64,
    leaf: Option<LeafHash>,
    /// The siblings on the way down from the root.
    siblings: RangeRoots,
}

impl PathBuilder {
    /// For leaf `index` in the tree of the first `size` leaves; `None` where it is not in that tree.
    pub fn new(index: u64, size: u64) -> Option<Self> {
        if index >= size {
            return None;
        }
        let (mut start, mut end) = (0, size);
        let mut siblings = RangeRoots::of_tree(size);
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                siblings.add(middle, end);
                end = middle;
            } else {
                siblings.add(start, middle);
                start = middle;
            }
        }
        Some(Self { index, leaf: None, siblings })
    }

    /// Begins behind the leaves of `before`, which are not there any more: left siblings are made of its roots. Comes before
    /// the first leaf. `false` where the leaf is one of those, so that there is no path.
    #[must_use]
    pub fn begin_behind(&mut self, before: &Frontier) -> bool {
        self.index >= before.size() && self.siblings.begin_behind(before)
    }

    /// Takes the next leaf. Leaves behind the tree are ignored.
    pub fn push(&mut self, leaf: LeafHash) {
        if self.siblings.push(leaf) == self.index {
            self.leaf = Some(leaf);
        }
    }

    /// The leaf and its audit path (RFC 6962 section 2.1.1), bottom up; `None` where fewer leaves came than the tree has.
    pub fn finish(self) -> Option<(LeafHash, Vec<Node>)> {
        let path = self.siblings.finish()?;
        Some((self.leaf?, path))
    }
}

/// Builds a consistency proof while the leaves of the larger tree pass by, oldest first.
#[derive(Debug)]
pub struct ConsistencyBuilder(RangeRoots);

impl ConsistencyBuilder {
    /// Between the trees of the first `old` and the first `new` leaves; `None` where `old > new`.
    pub fn new(old: u64, new: u64) -> Option<Self> {
        let mut nodes = RangeRoots::of_tree(new);
        if old == 0 || old >= new {
            return (old <= new).then_some(Self(nodes));
        }
        let (mut start, mut end) = (0, new);
        while old != end {
            let middle = start + split(end - start);
            if old <= middle {
                nodes.add(middle, end);
                end = middle;
            } else {
                nodes.add(start, middle);
                start = middle;
            }
        }
        if start != 0 {
            nodes.add(start, end);
        }
        Some(Self(nodes))
    }

    /// Begins behind the leaves of `before`, which are not there any more. Comes before the first leaf. `false` where the
    /// proof needs more of them than the roots of that frontier.
    #[must_use]
    pub fn begin_behind(&mut self, before: &Frontier) -> bool {
        self.0.begin_behind(before)
    }

    /// Takes the next leaf. Leaves behind the tree are ignored.
    pub fn push(&mut self, leaf: LeafHash) {
        self.0.push(leaf);
    }

    /// `PROOF(old, D[new])` of RFC 6962 section 2.1.2; `None` where fewer leaves came than the larger tree has.
    pub fn finish(self) -> Option<Vec<Node>> {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        leaf_hash,
        tree::{consistency_proof, inclusion_proof},
    };

    fn leaves(count: u64) -> Vec<LeafHash> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn a_path_built_in_passing_is_the_one_that_stored_hashes_give() {
        let leaves = leaves(40);
        for size in 1..=40_u64 {
            for index in 0..size {
                let mut builder = PathBuilder::new(index, size).unwrap();
                leaves.iter().for_each(|leaf| builder.push(*leaf));
                let expected = inclusion_proof(&leaves[..], index, size).unwrap();
                assert_eq!(builder.finish(), Some((leaves[index as usize], expected)), "{index} of {size}");
            }
        }
    }

    #[test]
    fn no_path_comes_of_too_few_leaves_or_for_a_leaf_outside() {
        assert!(PathBuilder::new(3, 3).is_none());
        let mut builder = PathBuilder::new(0, 2).unwrap();
        builder.push(leaf_hash(b"0"));
        assert_eq!(builder.finish(), None);
    }

    #[test]
    fn a_consistency_proof_built_in_passing_is_the_one_that_stored_hashes_give() {
        let leaves = leaves(40);
        for new in 0..=40_u64 {
            for old in 0..=new {
                let mut builder = ConsistencyBuilder::new(old, new).unwrap();
                leaves.iter().for_each(|leaf| builder.push(*leaf));
                let expected = consistency_proof(&leaves[..], old, new).unwrap();
                assert_eq!(builder.finish(), Some(expected), "{old} to {new}");
            }
        }
        assert!(ConsistencyBuilder::new(3, 2).is_none());
        assert_eq!(ConsistencyBuilder::new(1, 2).unwrap().finish(), None);
    }

    fn frontier(leaves: &[LeafHash]) -> Frontier {
        let mut frontier = Frontier::new();
        leaves.iter().for_each(|leaf| frontier.push(*leaf));
        frontier
    }

    #[test]
    fn behind_a_frontier_the_proofs_are_the_same_and_none_comes_of_what_only_pruned_leaves_give() {
        let leaves = leaves(40);
        let (mut made, mut refused) = (0, 0);
        for begin in 0..=40_u64 {
            let (before, rest) = leaves.split_at(begin as usize);
            let before = frontier(before);
            for size in 1..=40_u64 {
                for index in 0..size {
                    let mut builder = PathBuilder::new(index, size).unwrap();
                    let begun = builder.begin_behind(&before);
                    assert_eq!(begun, index >= begin, "{index} of {size} behind {begin}");
                    rest.iter().for_each(|leaf| builder.push(*leaf));
                    let expected = inclusion_proof(&leaves[..], index, size).unwrap();
                    if begun {
                        assert_eq!(builder.finish(), Some((leaves[index as usize], expected)));
                    }
                }
                for old in 1..=size {
                    let mut builder = ConsistencyBuilder::new(old, size).unwrap();
                    let begun = builder.begin_behind(&before);
                    assert!(begun || old < begin, "{old} to {size} behind {begin}");
                    rest.iter().for_each(|leaf| builder.push(*leaf));
                    let expected = consistency_proof(&leaves[..], old, size).unwrap();
                    if begun {
                        assert_eq!(builder.finish(), Some(expected), "{old} to {size} behind {begin}");
                        made += 1;
                    } else {
                        refused += 1;
                    }
                }
            }
        }
        assert!(made > 10_000 && refused > 1_000, "{made} {refused}");
    }
}
