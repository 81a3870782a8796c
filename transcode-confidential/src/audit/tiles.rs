//! The log as static files that any transparency log client reads: [c2sp.org/tlog-tiles](https://c2sp.org/tlog-tiles).
//!
//! A tile of level 0 is the leaf hashes of up to 256 events; one of level L holds the roots of 256 full tiles of the level
//! below. An entry bundle is the leaves of the same events. What lies at the right edge is partial, and named so.

use std::fmt;

use thiserror::Error;

use super::{
    leaf_hash,
    tree::{Frontier, Node},
};
use crate::ids::{LeafHash, RootHash};

/// Hashes in a full tile, and leaves in a full bundle.
pub const TILE_WIDTH: u16 = 256;

/// Which file of a tiled log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes of this level.
    Hashes(u8),
    /// Leaves, each behind its length in two bytes.
    Entries,
}

/// Name of a tile or bundle; displayed as the path below the log's prefix, as `tile/0/x001/x234/067.p/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TilePath {
    /// What is in it.
    pub kind: TileKind,
    /// Which one of its level.
    pub index: u64,
    /// Hashes or leaves in it, from 1 to [`TILE_WIDTH`]; fewer than that make it partial.
    pub width: u16,
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        let (last, before) = groups.split_first().unwrap_or((&0, &[]));
        before.iter().rev().try_for_each(|group| write!(f, "x{group:03}/"))?;
        write!(f, "{last:03}")?;
        if self.width == TILE_WIDTH { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

/// One file of a tiled log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Where it belongs.
    pub path: TilePath,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A leaf that no bundle can hold: its length does not fit into two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a leaf of {0} bytes does not fit into an entry bundle")]
pub struct LeafTooLong(
    /// Its length in bytes.
    pub usize,
);

/// Cuts a log into tiles while its leaves pass by, oldest first. Holds one unfinished tile a level.
#[derive(Debug, Default)]
pub struct TileBuilder {
    tree: Frontier,
    entries: Vec<u8>,
    levels: Vec<Vec<Node>>,
}

impl TileBuilder {
    /// Before the first leaf.
    pub const fn new() -> Self {
        Self { tree: Frontier::new(), entries: Vec::new(), levels: Vec::new() }
    }

    /// Number of leaves so far.
    pub const fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Root of the tree of the leaves so far: a checkpoint beside the tiles must have it.
    pub fn root(&self) -> RootHash {
        self.tree.root()
    }

    /// Takes the next leaf; gives the files that it completes.
    ///
    /// # Errors
    /// [`LeafTooLong`]; nothing was taken then.
    pub fn push(&mut self, leaf: &[u8]) -> Result<Vec<Tile>, LeafTooLong> {
        let length = u16::try_from(leaf.len()).map_err(|_| LeafTooLong(leaf.len()))?;
        let hash = leaf_hash(leaf);
        self.tree.push(hash);
        self.entries.extend_from_slice(&length.to_be_bytes());
        self.entries.extend_from_slice(leaf);
        let mut full = Vec::new();
        if self.size().is_multiple_of(u64::from(TILE_WIDTH)) {
            let path = TilePath { kind: TileKind::Entries, index: self.size() / 256 - 1, width: TILE_WIDTH };
            full.push(Tile { path, bytes: std::mem::take(&mut self.entries) });
        }
        self.add(0, *hash.as_bytes(), &mut full);
        Ok(full)
    }

    /// The partial files at the right edge. Together with the full ones they are all that a log of this size has.
    pub fn finish(self) -> Vec<Tile> {
        let size = self.size();
        let width = |count: usize| u16::try_from(count).unwrap_or(TILE_WIDTH);
        let mut partial = Vec::new();
        if let Some(leaves) = self.levels.first().filter(|leaves| !leaves.is_empty()) {
            let path = TilePath { kind: TileKind::Entries, index: size / 256, width: width(leaves.len()) };
            partial.push(Tile { path, bytes: self.entries });
        }
        for (level, nodes) in (0_u8..).zip(&self.levels).filter(|(_, nodes)| !nodes.is_empty()) {
            let path = TilePath { kind: TileKind::Hashes(level), index: index(size, level), width: width(nodes.len()) };
            partial.push(Tile { path, bytes: nodes.concat() });
        }
        partial
    }

    /// Adds a hash to a level; a tile that it completes is hashed into the level above.
    fn add(&mut self, level: u8, node: Node, full: &mut Vec<Tile>) {
        if self.levels.len() <= usize::from(level) {
            self.levels.push(Vec::with_capacity(usize::from(TILE_WIDTH)));
        }
        let Some(nodes) = self.levels.get_mut(usize::from(level)) else { return };
        nodes.push(node);
        if nodes.len() < usize::from(TILE_WIDTH) {
            return;
        }
        let nodes = std::mem::take(nodes);
        // The last leaf under this tile is the newest one, so this is the last tile of its level.
        let index = index(self.size(), level) - 1;
        let path = TilePath { kind: TileKind::Hashes(level), index, width: TILE_WIDTH };
        full.push(Tile { path, bytes: nodes.concat() });
        let mut subtree = Frontier::new();
        nodes.into_iter().for_each(|node| subtree.push(LeafHash::new(node)));
        self.add(level + 1, *subtree.root().as_bytes(), full);
    }
}

/// Number of full tiles of a level in a tree of this size.
const fn index(size: u64, level: u8) -> u64 {
    match size.checked_shr(8 * (level as u32 + 1)) {
        Some(index) => index,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(kind: TileKind, index: u64, width: u16) -> String {
        TilePath { kind, index, width }.to_string()
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(path(TileKind::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path(TileKind::Hashes(63), 0, 1), "tile/63/000.p/1");
        assert_eq!(path(TileKind::Entries, 1000, 255), "tile/entries/x001/000.p/255");
    }

    #[test]
    fn a_log_of_70_000_has_the_tiles_that_the_specification_counts() {
        let mut builder = TileBuilder::new();
        let mut tiles = Vec::new();
        for i in 0..70_000_u32 {
            tiles.extend(builder.push(&i.to_be_bytes()).unwrap());
        }
        tiles.extend(builder.finish());
        let count =
            |kind, width| tiles.iter().filter(|tile| (tile.path.kind, tile.path.width) == (kind, width)).count();
        assert_eq!(count(TileKind::Hashes(0), 256), 273);
        assert_eq!(count(TileKind::Entries, 256), 273);
        for (kind, width) in [
            (TileKind::Hashes(0), 112),
            (TileKind::Entries, 112),
            (TileKind::Hashes(1), 256),
            (TileKind::Hashes(1), 17),
            (TileKind::Hashes(2), 1),
        ] {
            assert_eq!(count(kind, width), 1, "{kind:?} {width}");
        }
        assert_eq!(tiles.len(), 2 * 273 + 5);
        let mut paths: Vec<_> = tiles.iter().map(|tile| tile.path.to_string()).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), tiles.len());
    }

    #[test]
    fn a_log_of_256_has_a_full_tile_and_its_root_one_level_up() {
        let mut builder = TileBuilder::new();
        let mut tiles = Vec::new();
        (0..=255_u8).for_each(|i| tiles.extend(builder.push(&[i]).unwrap()));
        let root = builder.root();
        tiles.extend(builder.finish());
        let paths: Vec<_> = tiles.iter().map(|tile| tile.path.to_string()).collect();
        assert_eq!(paths, ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
        assert_eq!(tiles[2].bytes, root.as_bytes());
        assert_eq!(tiles[0].bytes[..6], [0, 1, 0, 0, 1, 1]);
        assert!(TileBuilder::new().finish().is_empty());
    }

    #[test]
    fn a_leaf_that_no_length_of_two_bytes_can_tell_is_refused() {
        let mut builder = TileBuilder::new();
        assert_eq!(builder.push(&vec![0; 65_536]), Err(LeafTooLong(65_536)));
        assert_eq!(builder.size(), 0);
        assert!(builder.push(&vec![0; 65_535]).is_ok());
    }
}
