use super::{EMPTY_ROOT, Node, node_hash};
use crate::ids::{LeafHash, RootHash};

/// The roots of the complete subtrees that a tree of some size consists of, largest first: all that is needed to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    /// One node for each one bit of `size`, from the highest bit down.
    peaks: Vec<Node>,
}

impl Frontier {
    /// The tree with no leaves.
    pub const fn new() -> Self {
        Self { size: 0, peaks: Vec::new() }
    }

    /// Takes up a frontier that was stored, or `None` where the number of peaks does not fit the size.
    pub fn from_parts(size: u64, peaks: Vec<Node>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// The frontier of the first `size` leaves, from the last of them and its audit path in that tree: all of that path are
    /// left siblings, of which the upper ones are the other peaks. `None` for no leaves, or a path of another length. Nothing
    /// vouches for the result but its root.
    pub fn from_last_path(size: u64, last: LeafHash, path: &[Node]) -> Option<Self> {
        let inside = usize::try_from(size.trailing_zeros()).ok()?;
        if size == 0 || path.len() + 1 != inside + size.count_ones() as usize {
            return None;
        }
        let (inside, peaks) = path.split_at_checked(inside)?;
        let smallest = inside.iter().fold(*last.as_bytes(), |node, left| node_hash(left, &node));
        let peaks = peaks.iter().rev().copied().chain([smallest]).collect();
        Self::from_parts(size, peaks)
    }

    /// Number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the complete subtrees, largest first.
    pub fn peaks(&self) -> &[Node] {
        &self.peaks
    }

    /// Adds one leaf, merging the subtrees that it completes.
    pub fn push(&mut self, leaf: LeafHash) {
        self.push_and(leaf, |_, _| {});
    }

    /// As [`Frontier::push`]; `made` is told every interior node that the leaf completes, with its level above the leaves.
    pub fn push_and(&mut self, leaf: LeafHash, mut made: impl FnMut(u32, Node)) {
        let mut node = *leaf.as_bytes();
        for below in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = node_hash(&left, &node);
                made(below + 1, node);
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The Merkle tree head, RFC 6962 section 2.1.
    pub fn root(&self) -> RootHash {
        let root = self.peaks.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        RootHash::new(root.unwrap_or(EMPTY_ROOT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{leaf_hash, tree::inclusion_proof};

    #[test]
    fn the_path_of_the_last_leaf_gives_the_whole_frontier() {
        let leaves: Vec<_> = (0..70_u64).map(|i| leaf_hash(&i.to_be_bytes())).collect();
        let mut expected = Frontier::new();
        for (last, size) in leaves.iter().zip(1..) {
            expected.push(*last);
            let path = inclusion_proof(&leaves[..], size - 1, size).unwrap();
            assert_eq!(Frontier::from_last_path(size, *last, &path), Some(expected.clone()), "{size}");
            let longer = [&path[..], &[[0; 32]]].concat();
            assert_eq!(Frontier::from_last_path(size, *last, &longer), None);
        }
        assert_eq!(Frontier::from_last_path(0, leaves[0], &[]), None);
    }
}
