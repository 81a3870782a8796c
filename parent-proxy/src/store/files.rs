use std::{io, path::PathBuf, sync::Arc};

use transcode_confidential::{audit::segment::SegmentName, time::Timestamp};

use super::disk::{Access, Disk, DiskFile, read_full, write_all};

const CHUNK: usize = 256 * 1024;

/// Where the parts of a store lie.
///
/// | name | what |
/// |---|---|
/// | `<first>-<epoch>.seg` | a segment |
/// | `new` | a segment that is being made; never acknowledged |
/// | `quarantine/` | tails that were set aside |
/// | `hashes` | index of leaf hashes, rebuilt at will |
/// | `reserve` | disk space kept aside |
/// | `lock` | held by the one proxy that has the store open |
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
}

impl Files {
    pub(super) fn segment(&self, name: SegmentName) -> PathBuf {
        self.directory.join(name.to_string())
    }

    pub(super) fn staged(&self) -> PathBuf {
        self.directory.join("new")
    }

    pub(super) fn hashes(&self) -> PathBuf {
        self.directory.join("hashes")
    }

    pub(super) fn reserve(&self) -> PathBuf {
        self.directory.join("reserve")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    /// Names of the segments, in the order of the log.
    pub(super) fn segments(&self) -> io::Result<Vec<SegmentName>> {
        let mut names: Vec<SegmentName> =
            self.disk.list(&self.directory)?.iter().filter_map(|name| name.parse().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Makes the directory, durably.
    pub(super) fn make_directory(&self) -> io::Result<()> {
        self.disk.make_directory(&self.directory)?;
        match self.directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => self.disk.sync_directory(parent),
            None => Ok(()),
        }
    }

    /// Sets aside what a segment holds from `offset` on.
    ///
    /// 1. The tail is copied into `quarantine/`, and the copy is synced. A crash here leaves a part of a copy; the segment
    ///    is whole, and the enclave asks again.
    /// 2. The directory `quarantine/` is synced, and ours, which names it. A crash here leaves a copy too many.
    /// 3. The segment is cut off, durably. A crash before this leaves the tail, and the enclave asks again.
    pub(super) fn set_aside(
        &self,
        name: SegmentName,
        file: &dyn DiskFile,
        offset: u64,
        now: Timestamp,
    ) -> io::Result<()> {
        let quarantine = self.directory.join("quarantine");
        self.disk.make_directory(&quarantine)?;
        let copy = self.unused(&quarantine, &format!("{name}.{offset}"), now)?;
        copy_tail(file, offset, copy.as_ref())?;
        copy.sync()?;
        self.disk.sync_directory(&quarantine)?;
        self.disk.sync_directory(&self.directory)?;
        file.truncate(offset)
    }

    /// A new file in the quarantine; two in the same millisecond get two names.
    fn unused(&self, directory: &std::path::Path, stem: &str, now: Timestamp) -> io::Result<Box<dyn DiskFile>> {
        let mut time = now.0;
        loop {
            match self.disk.open(&directory.join(format!("{stem}.{time}")), Access::CreateNew) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => time = time.saturating_add(1),
                result => return result,
            }
        }
    }
}

fn copy_tail(from: &dyn DiskFile, mut offset: u64, to: &dyn DiskFile) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut position = 0;
    loop {
        let count = read_full(from, &mut chunk, offset)?;
        if count == 0 {
            return Ok(());
        }
        write_all(to, chunk.get(..count).unwrap_or_default(), position)?;
        position += count as u64;
        offset += count as u64;
    }
}
