use super::{Frontier, Node, node_hash};
use crate::ids::LeafHash;

/// The right edge of a tree: what a batch of leaves added to a frontier.
///
/// Gives inclusion proofs for the leaves of the batch at logarithmic cost each, although nothing to the left of the batch
/// was kept but the frontier: a left sibling on the path of a new leaf is either a peak of the old frontier or new itself.
#[derive(Debug)]
pub struct BatchTree {
    size: u64,
    /// For each level the index of its first known node, and the nodes from there on. An incomplete last node stands for
    /// all the leaves under it.
    levels: Vec<(u64, Vec<Node>)>,
}

impl BatchTree {
    /// The tree of `before` followed by `leaves`.
    pub fn new(before: &Frontier, leaves: &[LeafHash]) -> Self {
        let size = before.size() + leaves.len() as u64;
        let mut peaks = before.peaks().iter().rev().copied();
        let mut first = before.size();
        let mut nodes: Vec<Node> = leaves.iter().map(|leaf| *leaf.as_bytes()).collect();
        let mut levels = Vec::new();
        let mut width = size;
        loop {
            // A one bit of the old size at this level is a peak, and the left sibling of the first new node.
            if before.size() >> levels.len() & 1 == 1
                && let Some(peak) = peaks.next()
            {
                nodes.insert(0, peak);
                first -= 1;
            }
            let above = nodes.chunks(2).map(|pair| match pair {
                [left, right] => node_hash(left, right),
                // The last node of a level without a sibling stands unchanged one level up (RFC 6962 section 2.1.1).
                [single] => *single,
                _ => super::EMPTY_ROOT,
            });
            let above: Vec<Node> = above.collect();
            levels.push((first, std::mem::replace(&mut nodes, above)));
            if width <= 1 {
                return Self { size, levels };
            }
            first /= 2;
            width = width.div_ceil(2);
        }
    }

    /// The audit path of leaf `index` (RFC 6962 section 2.1.1) in the tree of [`BatchTree::size`] leaves, bottom up.
    /// `None` where the leaf is not in the batch.
    pub fn path(&self, index: u64) -> Option<Vec<Node>> {
        let (first, leaves) = self.levels.first()?;
        if index < *first || index >= first + leaves.len() as u64 {
            return None;
        }
        let mut path = Vec::with_capacity(self.levels.len());
        for (level, (first, nodes)) in self.levels.iter().enumerate() {
            let sibling = (index >> level) ^ 1;
            if let Some(node) = sibling.checked_sub(*first).and_then(|at| nodes.get(usize::try_from(at).ok()?)) {
                path.push(*node);
            }
        }
        Some(path)
    }

    /// Number of leaves of the whole tree.
    pub const fn size(&self) -> u64 {
        self.size
    }
}
