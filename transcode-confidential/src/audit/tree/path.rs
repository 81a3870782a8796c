use super::{Frontier, Node};
use crate::ids::LeafHash;

/// Builds an audit path while the leaves of a tree pass by, oldest first: memory is logarithmic in the size of the tree.
#[derive(Debug)]
pub struct PathBuilder {
    index: u64,
    size: u64,
    next: u64,
    leaf: Option<LeafHash>,
    /// The siblings on the way down from the root, as the range of leaves that each stands for.
    siblings: Vec<(u64, u64, Frontier)>,
}

impl PathBuilder {
    /// For leaf `index` in the tree of the first `size` leaves; `None` where it is not in that tree.
    pub fn new(index: u64, size: u64) -> Option<Self> {
        if index >= size {
            return None;
        }
        let (mut start, mut end) = (0, size);
        let mut siblings = Vec::new();
        while end - start > 1 {
            let middle = start + super::proof::split(end - start);
            if index < middle {
                siblings.push((middle, end, Frontier::new()));
                end = middle;
            } else {
                siblings.push((start, middle, Frontier::new()));
                start = middle;
            }
        }
        Some(Self { index, size, next: 0, leaf: None, siblings })
    }

    /// Takes the next leaf. Leaves behind the tree are ignored.
    pub fn push(&mut self, leaf: LeafHash) {
        let at = self.next;
        self.next = at.saturating_add(1);
        if at == self.index {
            self.leaf = Some(leaf);
        } else if let Some((_, _, under)) =
            self.siblings.iter_mut().find(|(start, end, _)| (*start..*end).contains(&at))
        {
            under.push(leaf);
        }
    }

    /// The leaf and its audit path (RFC 6962 section 2.1.1), bottom up; `None` where fewer leaves came than the tree has.
    pub fn finish(self) -> Option<(LeafHash, Vec<Node>)> {
        if self.next < self.size {
            return None;
        }
        let path = self.siblings.iter().rev().map(|(_, _, under)| *under.root().as_bytes()).collect();
        Some((self.leaf?, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{leaf_hash, tree::inclusion_proof};

    #[test]
    fn a_path_built_in_passing_is_the_one_that_stored_hashes_give() {
        let leaves: Vec<_> = (0..40_u64).map(|i| leaf_hash(&i.to_be_bytes())).collect();
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
}
