//! The leaf hashes of the log, for proofs.
//!
//! They lie in the file `hashes`, 32 bytes a leaf at `32 * position`, and the roots of complete subtrees from 256 leaves up
//! are kept in memory. The file is never trusted: opening the store compares it with the segments and
//! writes what differs. Positions that no segment holds any more keep what the file says: before segments are dropped, the
//! file is synced. What it says of those is held against the snapshot that stands for them; where it is lost or wrong, the roots
//! in the snapshot still serve every proof that needs no more of them.

use std::{cell::RefCell, io, path::Path};

use transcode_confidential::{
    audit::tree::{Frontier, HashSource, Node, node_hash, root_of},
    ids::LeafHash,
};

use super::disk::{Access, Disk, DiskFile, read_full, write_all};

/// Leaves in a block: the unit of reading, writing and caching.
const BLOCK: u64 = 256;
const BLOCK_LEVEL: u32 = BLOCK.trailing_zeros();
const HASH: u64 = 32;
/// Stands for a hash that is not known; no input to SHA-256 is known that gives it.
const UNKNOWN: Node = [0; 32];

/// The leaf hashes of a log. Reading and writing it never fails the store.
#[derive(Debug)]
pub(super) struct HashIndex {
    file: Option<Box<dyn DiskFile>>,
    /// Leaves of whole blocks, in the file.
    stored: u64,
    /// The leaves after those.
    fresh: Vec<Node>,
    /// `subtrees[k][j]` is the root of block-aligned leaves `j * 256 * 2^k ..`.
    subtrees: Vec<Vec<Node>>,
    /// The block that was read last.
    cached: RefCell<Option<(u64, Vec<Node>)>>,
    /// The tree of leaves that no segment holds and the file does not know, or knows wrongly.
    lost: Frontier,
}

impl HashIndex {
    /// Opens the file; the leaves are then pushed from the first on.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Self {
        let file = disk.open(path, Access::Create);
        if let Err(error) = &file {
            tracing::warn!(%error, "the index of hashes cannot be opened; it is kept in memory");
        }
        Self {
            file: file.ok(),
            stored: 0,
            fresh: Vec::new(),
            subtrees: Vec::new(),
            cached: RefCell::new(None),
            lost: Frontier::new(),
        }
    }

    /// Holds what the file says of leaves that no segment holds against their tree, as the first snapshot has it. They have been
    /// passed by [`HashIndex::place`].
    pub(super) fn begin_behind(&mut self, before: &Frontier) {
        if self.size() < before.size() {
            return;
        }
        let mut peaks = peaks(before);
        if !peaks.all(|(start, level, peak)| root_of(self, start, start + (1 << level)) == Ok(peak)) {
            tracing::warn!(
                before = before.size(),
                "the hashes of pruned events are lost: some proofs cannot be made any more"
            );
            self.lost = before.clone();
        }
    }

    /// What the snapshot says of a subtree that lies among lost leaves, or of its beginning; `None` for others.
    fn among_lost(&self, start: u64, level: u32) -> Option<Option<Node>> {
        let known = || peaks(&self.lost).find(|(at, of, _)| (*at, *of) == (start, level)).map(|(_, _, peak)| peak);
        (start < self.lost.size()).then(known)
    }

    /// Number of leaves.
    pub(super) fn size(&self) -> u64 {
        self.stored + self.fresh.len() as u64
    }

    /// Puts the leaf of a position there. Positions are given in ascending order; those left out keep what the file says.
    pub(super) fn place(&mut self, position: u64, leaf: LeafHash) {
        while self.size() < position {
            // Whole blocks at once: there may be millions of pruned leaves.
            let whole = self.fresh.is_empty() && position - self.size() >= BLOCK;
            if whole && let Some(nodes) = self.read_block(self.stored / BLOCK) {
                nodes.into_iter().for_each(|node| self.push(node));
                continue;
            }
            let known = self.file.as_ref().and_then(|file| read_hash(file.as_ref(), self.size()));
            self.push(known.unwrap_or(UNKNOWN));
        }
        if self.size() == position {
            self.push(*leaf.as_bytes());
        }
    }

    /// Makes every hash durable: what the segments no longer show is known from here only.
    pub(super) fn keep(&self) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        write_all(file.as_ref(), &self.fresh.concat(), self.stored * HASH)?;
        file.sync()
    }

    fn push(&mut self, leaf: Node) {
        self.fresh.push(leaf);
        // Where a block could not be written, it and all after it stay in memory.
        if (self.fresh.len() as u64).is_multiple_of(BLOCK) {
            let block = self.fresh.len().checked_sub(BLOCK as usize).and_then(|start| self.fresh.get(start..));
            let root = block.map_or(UNKNOWN, subtree_root);
            self.grow(0, root);
            if self.fresh.len() as u64 == BLOCK && self.write_block().is_ok() {
                self.stored += BLOCK;
                self.fresh.clear();
            }
        }
    }

    fn grow(&mut self, level: usize, root: Node) {
        if self.subtrees.len() == level {
            self.subtrees.push(Vec::new());
        }
        let Some(nodes) = self.subtrees.get_mut(level) else { return };
        nodes.push(root);
        if nodes.len() % 2 == 0
            && let Some([left, right]) = nodes.last_chunk()
        {
            let above = parent(left, right);
            self.grow(level + 1, above);
        }
    }

    fn write_block(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let (bytes, offset) = (self.fresh.concat(), self.stored * HASH);
        let mut found = vec![0; bytes.len()];
        let same = read_full(file.as_ref(), &mut found, offset).is_ok_and(|count| count == bytes.len());
        if same && found == bytes {
            return Ok(());
        }
        let written = write_all(file.as_ref(), &bytes, offset);
        if let Err(error) = &written {
            tracing::warn!(%error, "the index of hashes cannot be written; it goes on in memory");
            self.file = None;
        }
        written
    }

    fn read_block(&self, block: u64) -> Option<Vec<Node>> {
        let mut bytes = vec![0; (BLOCK * HASH) as usize];
        let count = read_full(self.file.as_ref()?.as_ref(), &mut bytes, block * BLOCK * HASH).ok()?;
        (count == bytes.len()).then(|| bytes.as_chunks().0.to_vec())
    }
}

impl HashSource for HashIndex {
    fn leaf(&self, index: u64) -> Option<LeafHash> {
        if let Some(known) = self.among_lost(index, 0) {
            return known.map(LeafHash::new);
        }
        let node = if let Some(at) = index.checked_sub(self.stored) {
            self.fresh.get(usize::try_from(at).ok()?).copied()?
        } else {
            let mut cached = self.cached.borrow_mut();
            let block = index / BLOCK;
            if cached.as_ref().is_none_or(|(number, _)| *number != block) {
                *cached = Some((block, self.read_block(block)?));
            }
            let (_, nodes) = cached.as_ref()?;
            *nodes.get((index % BLOCK) as usize)?
        };
        (node != UNKNOWN).then(|| LeafHash::new(node))
    }

    fn subtree(&self, start: u64, level: u32) -> Option<Node> {
        if let Some(known) = self.among_lost(start, level) {
            return known;
        }
        let above = level.checked_sub(BLOCK_LEVEL)?;
        let nodes = self.subtrees.get(above as usize)?;
        let node = nodes.get(usize::try_from(start >> level).ok()?)?;
        (start.trailing_zeros() >= level && *node != UNKNOWN).then_some(*node)
    }
}

fn read_hash(file: &dyn DiskFile, position: u64) -> Option<Node> {
    let mut node = UNKNOWN;
    let count = read_full(file, &mut node, position.checked_mul(HASH)?).ok()?;
    (count == node.len()).then_some(node)
}

/// The subtrees of a frontier: first leaf, level, root.
fn peaks(tree: &Frontier) -> impl Iterator<Item = (u64, u32, Node)> {
    let size = tree.size();
    let levels = (0..u64::BITS).rev().filter(move |level| size >> level & 1 == 1);
    // What lies before a peak are the higher bits.
    levels.zip(tree.peaks()).map(move |(level, peak)| (size & !(u64::MAX >> (u64::BITS - 1 - level)), level, *peak))
}

/// The root over a power of two of nodes.
fn subtree_root(nodes: &[Node]) -> Node {
    match nodes {
        [] => UNKNOWN,
        [node] => *node,
        _ => {
            let above: Vec<Node> = nodes.as_chunks().0.iter().map(|[left, right]| parent(left, right)).collect();
            subtree_root(&above)
        }
    }
}

fn parent(left: &Node, right: &Node) -> Node {
    if *left == UNKNOWN || *right == UNKNOWN { UNKNOWN } else { node_hash(left, right) }
}

#[cfg(test)]
mod tests {
    use transcode_confidential::audit::{
        leaf_hash,
        tree::{consistency_proof, inclusion_proof},
    };

    use super::{
        super::disk::{Lock, SystemDisk},
        *,
    };

    fn leaves(count: u64) -> Vec<LeafHash> {
        (0..count).map(|position| leaf_hash(&position.to_be_bytes())).collect()
    }

    fn filled(path: &Path, leaves: &[LeafHash]) -> HashIndex {
        let mut index = HashIndex::open(&SystemDisk, path);
        leaves.iter().zip(0..).for_each(|(leaf, position)| index.place(position, *leaf));
        index
    }

    /// Proofs at a sample of places around block borders.
    fn check(index: &HashIndex, leaves: &[LeafHash]) {
        let size = leaves.len() as u64;
        for position in [0, 1, 255, 256, 257, 511, 512, 1000, size - 1] {
            for tree in [257, 512, 768, 1024, 1025, size] {
                if position < tree {
                    assert_eq!(inclusion_proof(index, position, tree), inclusion_proof(leaves, position, tree));
                    assert_eq!(consistency_proof(index, position, tree), consistency_proof(leaves, position, tree));
                }
            }
        }
    }

    #[test]
    fn proofs_are_those_of_the_plain_list() {
        let dir = tempfile::tempdir().unwrap();
        let leaves = leaves(1500);
        check(&filled(&dir.path().join("hashes"), &leaves), &leaves);
    }

    #[test]
    fn a_spoilt_file_is_repaired_when_the_leaves_are_placed_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hashes");
        let leaves = leaves(1500);
        filled(&path, &leaves);
        let mut bytes = std::fs::read(&path).unwrap();
        let good = bytes.clone();
        bytes[40] ^= 1;
        bytes.truncate(600 * 32);
        std::fs::write(&path, bytes).unwrap();
        check(&filled(&path, &leaves), &leaves);
        assert_eq!(std::fs::read(&path).unwrap(), good);
    }

    #[test]
    fn leaves_that_no_segment_holds_are_taken_from_the_file_or_are_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hashes");
        let leaves = leaves(1500);
        filled(&path, &leaves);
        let place_late = |path: &Path| {
            let mut index = HashIndex::open(&SystemDisk, path);
            leaves.iter().zip(0..).skip(700).for_each(|(leaf, position)| index.place(position, *leaf));
            index
        };
        check(&place_late(&path), &leaves);
        std::fs::remove_file(&path).unwrap();
        let index = place_late(&path);
        assert!(inclusion_proof(&index, 1400, 1500).is_err());
        assert_eq!(index.leaf(699), None);
        assert_eq!(index.leaf(700), Some(leaves[700]));
    }

    #[test]
    fn where_hashes_are_lost_or_wrong_the_snapshot_gives_every_proof_that_it_can_and_no_wrong_one_is_made() {
        let leaves = leaves(1500);
        for (begin, byte) in [(700_u64, None), (700, Some(40)), (700, Some(650 * 32)), (768, Some(0)), (701, None)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("hashes");
            filled(&path, &leaves);
            if let Some(byte) = byte {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[byte] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            } else {
                std::fs::remove_file(&path).unwrap();
            }
            let mut before = Frontier::new();
            leaves[..begin as usize].iter().for_each(|leaf| before.push(*leaf));
            let mut index = HashIndex::open(&SystemDisk, &path);
            leaves.iter().zip(0..).skip(begin as usize).for_each(|(leaf, position)| index.place(position, *leaf));
            index.begin_behind(&before);
            let (mut made, mut not) = (0, 0);
            for old in (1..1500).step_by(7).chain([begin - 1, begin, begin + 1]) {
                for new in [begin, 1024, 1300, 1500].into_iter().filter(|new| *new >= old) {
                    let expected = consistency_proof(&leaves[..], old, new);
                    let found = consistency_proof(&index, old, new);
                    assert!(found == expected || old < begin && found.is_err(), "{old} {new} behind {begin}");
                    *(if found.is_ok() { &mut made } else { &mut not }) += 1;
                    let (expected, found) =
                        (inclusion_proof(&leaves[..], old - 1, new), inclusion_proof(&index, old - 1, new));
                    assert!(found == expected || old <= begin && found.is_err(), "{old} {new} behind {begin}");
                }
            }
            assert!(made > 150 && not > 100, "{made} {not}");
        }
    }

    #[test]
    fn good_hashes_of_what_no_segment_holds_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hashes");
        let leaves = leaves(1500);
        filled(&path, &leaves).keep().unwrap();
        let mut before = Frontier::new();
        leaves[..700].iter().for_each(|leaf| before.push(*leaf));
        let mut index = HashIndex::open(&SystemDisk, &path);
        leaves.iter().zip(0..).skip(700).for_each(|(leaf, position)| index.place(position, *leaf));
        index.begin_behind(&before);
        check(&index, &leaves);
    }

    #[test]
    fn without_a_file_everything_is_kept_in_memory() {
        #[derive(Debug)]
        struct NoDisk;
        impl Disk for NoDisk {
            fn make_directory(&self, _: &Path) -> io::Result<()> {
                Ok(())
            }
            fn list(&self, _: &Path) -> io::Result<Vec<String>> {
                Ok(Vec::new())
            }
            fn open(&self, _: &Path, _: Access) -> io::Result<Box<dyn DiskFile>> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
                Ok(())
            }
            fn remove(&self, _: &Path) -> io::Result<()> {
                Ok(())
            }
            fn sync_directory(&self, _: &Path) -> io::Result<()> {
                Ok(())
            }
            fn lock(&self, _: &Path) -> io::Result<Box<dyn Lock>> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        let leaves = leaves(1500);
        let mut index = HashIndex::open(&NoDisk, Path::new("hashes"));
        leaves.iter().zip(0..).for_each(|(leaf, position)| index.place(position, *leaf));
        check(&index, &leaves);
    }
}
