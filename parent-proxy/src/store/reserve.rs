//! Disk space kept aside, so that a full disk does not keep the enclave from its last words.
//!
//! The reserve is the file `reserve` of zeros. While there is room it only lies there. The first batch that finds the disk
//! full is refused, so that the enclave knows; when it sends the batch again and there is still no room, the reserve is
//! removed and what it held is used: for the batches that were under way, for revocations, for the end of the epoch. The
//! store cannot tell what an entry says, so what to spend the reserve on is the enclave's decision. Once there is room
//! again the reserve is made anew.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::disk::{Access, Disk, write_all};

/// How often to try to make the reserve anew.
const RETRY: Duration = Duration::from_secs(10);
const CHUNK: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    size: u64,
    held: bool,
    tried: Instant,
}

impl Reserve {
    /// Finds the reserve or makes it. A disk that is too full for it is no error.
    pub(super) fn open(disk: &dyn Disk, path: PathBuf, size: u64) -> Self {
        let found = disk.open(&path, Access::Read).and_then(|file| file.length());
        let mut reserve = Self { path, size, held: found.is_ok_and(|length| length == size), tried: Instant::now() };
        if !reserve.held {
            reserve.make(disk);
        }
        reserve
    }

    /// Whether the space is there to be used.
    pub(super) const fn is_held(&self) -> bool {
        self.held
    }

    /// Whether the space has been used and is missing.
    pub(super) const fn is_missing(&self) -> bool {
        !self.held && self.size > 0
    }

    /// Gives the space away.
    pub(super) fn release(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.held = false;
        self.tried = Instant::now();
        disk.remove(&self.path)
    }

    /// Takes the space back, where it is missing and another attempt is due.
    pub(super) fn restore(&mut self, disk: &dyn Disk) {
        if self.is_missing() && self.tried.elapsed() >= RETRY {
            self.make(disk);
        }
    }

    fn make(&mut self, disk: &dyn Disk) {
        self.tried = Instant::now();
        if self.size == 0 {
            return;
        }
        match fill(disk, &self.path, self.size) {
            Ok(()) => self.held = true,
            Err(error) => {
                tracing::warn!(%error, bytes = self.size, "there is no room for the disk reserve");
                // Half a reserve would only take the room away that is needed now.
                let _ = disk.remove(&self.path);
            }
        }
    }
}

fn fill(disk: &dyn Disk, path: &Path, size: u64) -> io::Result<()> {
    let file = disk.open(path, Access::Create)?;
    let zeros = vec![0; usize::try_from(size).unwrap_or(CHUNK).min(CHUNK)];
    let mut offset = 0;
    while offset < size {
        let count = usize::try_from(size - offset).unwrap_or(CHUNK).min(CHUNK);
        write_all(file.as_ref(), zeros.get(..count).unwrap_or(&zeros), offset)?;
        offset += count as u64;
    }
    file.truncate(size)?;
    // Blocks that are only promised would be missing when they are needed.
    file.sync()
}
