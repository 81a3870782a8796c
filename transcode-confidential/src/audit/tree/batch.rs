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
        let mut frontier = before.clone();
        let mut made = Vec::new();
        leaves.iter().for_each(|leaf| frontier.push_and(*leaf, |level, node| made.push((level, node))));
        Self::of(before, leaves, &made)
    }

    /// As [`BatchTree::new`], where [`Frontier::push_and`] has told of each interior node that the leaves completed.
    pub(in crate::audit) fn of(before: &Frontier, leaves: &[LeafHash], made: &[(u32, Node)]) -> Self {
        let size = before.size() + leaves.len() as u64;
        let mut peaks = before.peaks().iter().rev().copied();
        let mut made = by_level(made).into_iter();
        let mut levels: Vec<(u64, Vec<Node>)> = Vec::new();
        // What stands for the leaves behind the last complete node of a level.
        let mut rest: Option<Node> = None;
        for level in 0..u64::BITS {
            let first = before.size() >> level;
            let complete = size >> level;
            // A one bit of the old size is a peak, and the left sibling of the first new node.
            let peak = if first & 1 == 1 { peaks.next() } else { None };
            let mut nodes: Vec<Node> = peak.into_iter().collect();
            match level {
                0 => nodes.extend(leaves.iter().map(|leaf| *leaf.as_bytes())),
                _ => nodes.extend(made.next().unwrap_or_default()),
            }
            let single = if complete & 1 == 1 { nodes.last().copied() } else { None };
            nodes.extend(rest);
            levels.push((first - u64::from(peak.is_some()), nodes));
            if complete + u64::from(rest.is_some()) <= 1 {
                break;
            }
            // A last node without a sibling stands unchanged one level up (RFC 6962 section 2.1.1).
            rest = match (single, rest) {
                (Some(left), Some(right)) => Some(node_hash(&left, &right)),
                (single, rest) => single.or(rest),
            };
        }
        Self { size, levels }
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

/// The nodes of each level from 1 up, in their order.
fn by_level(made: &[(u32, Node)]) -> Vec<Vec<Node>> {
    let mut levels: Vec<Vec<Node>> = Vec::new();
    for (level, node) in made {
        let above = *level as usize - 1;
        if levels.len() <= above {
            levels.resize_with(above + 1, Vec::new);
        }
        if let Some(nodes) = levels.get_mut(above) {
            nodes.push(*node);
        }
    }
    levels
}
