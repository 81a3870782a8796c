use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use transcode_confidential::{audit::segment::SegmentName, time::Timestamp};

use super::{
    disk::{Access, Disk, DiskFile, read_full, write_all},
    place::Place,
};

const CHUNK: usize = 256 * 1024;

/// Where the parts of a store lie.
///
/// | name | what |
/// |---|---|
/// | `<first>-<epoch>.seg` | a segment |
/// | `<first>-<epoch>.seg.gz` | a packed segment |
/// | `new` | a segment that is being made; never acknowledged |
/// | `moving` | a segment that is being packed or moved, in the directory that it goes to |
/// | `archived` | says that there is an archive; `archive` in that one says that this is it |
/// | `quarantine/` | tails that were set aside |
/// | `hashes` | index of leaf hashes, rebuilt at will |
/// | `reserve` | disk space kept aside |
/// | `lock` | held by the one proxy that has the store open |
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) archive: Option<PathBuf>,
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

    /// A copy on its way to a place.
    pub(super) fn moving(&self, to: Place) -> PathBuf {
        self.directory_of(to).join("moving")
    }

    /// The segments in the order of the log, each with the places where it lies, in their order.
    pub(super) fn segments(&self) -> io::Result<BTreeMap<SegmentName, Vec<Place>>> {
        let mut found: BTreeMap<SegmentName, Vec<Place>> = BTreeMap::new();
        let directories = [(false, Some(&self.directory)), (true, self.archive.as_ref())];
        for (archived, directory) in directories {
            let Some(directory) = directory else { continue };
            for name in self.disk.list(directory)? {
                let (name, packed) = name.strip_suffix(packed::SUFFIX).map_or((&*name, false), |name| (name, true));
                if let Ok(name) = name.parse() {
                    found.entry(name).or_default().push(Place { archived, packed });
                }
            }
        }
        found.values_mut().for_each(|places| places.sort_unstable());
        Ok(found)
    }

    /// Makes the archive, where there is to be one, and removes what was on its way. An archive that was there before and is
    /// missing, as a file system that is not mounted is, would look like a log whose beginning was dropped: that is an error.
    ///
    /// 1. The archive is made, and the mark in it, durably.
    /// 2. Then ours, durably. From here on the archive must be there.
    pub(super) fn check_archive(&self) -> io::Result<()> {
        let (ours, mark) = (self.directory.join("archived"), self.archive.as_ref().map(|path| path.join("archive")));
        let is_there = |path: &PathBuf| match self.disk.open(path, Access::Read) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        match (is_there(&ours)?, &self.archive, &mark) {
            (true, Some(_), Some(mark)) if is_there(mark)? => {}
            (true, ..) => {
                let problem =
                    "segments were moved to an archive, and store.archive does not lead there; is it mounted?";
                return Err(io::Error::new(io::ErrorKind::NotFound, problem));
            }
            (false, Some(archive), Some(mark)) => {
                self.disk.make_directory(archive)?;
                self.disk.open(mark, Access::Create)?.sync()?;
                self.disk.sync_directory(archive)?;
                self.disk.open(&ours, Access::Create)?.sync()?;
                self.disk.sync_directory(&self.directory)?;
            }
            (false, ..) => {}
        }
        for archived in [false, true] {
            match self.disk.remove(&self.moving(Place { archived, packed: false })) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
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
