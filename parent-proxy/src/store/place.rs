//! Where the file of a segment lies, and in which form.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use packed::Unpack;
use transcode_confidential::audit::segment::SegmentName;

use super::{
    disk::{Access, Disk, DiskFile, read_full, write_all},
    files::Files,
};

/// One of the four. The order is that of a segment's life: it only ever moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub(super) archived: bool,
    pub(super) packed: bool,
}

impl Place {
    /// As it was written, in the store's own directory.
    pub(super) const WRITTEN: Self = Self { archived: false, packed: false };
}

impl Files {
    pub(super) fn directory_of(&self, place: Place) -> &Path {
        self.archive.as_deref().filter(|_| place.archived).unwrap_or(&self.directory)
    }

    pub(super) fn at(&self, name: SegmentName, place: Place) -> PathBuf {
        let suffix = if place.packed { packed::SUFFIX } else { "" };
        self.directory_of(place).join(format!("{name}{suffix}"))
    }

    /// Opens a segment: what is read are its own bytes, however they lie there.
    pub(super) fn open_at(&self, name: SegmentName, place: Place) -> io::Result<Box<dyn DiskFile>> {
        let path = self.at(name, place);
        match place {
            Place::WRITTEN => self.disk.open(&path, Access::Write),
            Place { packed: false, .. } => self.disk.open(&path, Access::Read),
            Place { packed: true, .. } => Ok(Box::new(PackedFile::open(&self.disk, path)?)),
        }
    }
}

/// A packed segment, read as the segment that it is. Reading on is cheap; going back starts anew.
#[derive(Debug)]
pub(super) struct PackedFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    length: u64,
    /// Where the next byte comes from.
    cursor: std::cell::RefCell<Option<(u64, Unpack<Stream>)>>,
}

impl PackedFile {
    pub(super) fn open(disk: &Arc<dyn Disk>, path: PathBuf) -> io::Result<Self> {
        let file = disk.open(&path, Access::Read)?;
        let mut trailer = [0; 4];
        let end = file.length()?;
        // A file without a trailer is no segment: of no length, and read as such.
        if end >= 4 {
            read_full(file.as_ref(), &mut trailer, end - 4)?;
        }
        let length = packed::length(trailer);
        Ok(Self { disk: Arc::clone(disk), path, length, cursor: None.into() })
    }
}

impl DiskFile for PackedFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.length {
            return Ok(0);
        }
        let (position, mut unpack) = match self.cursor.take().filter(|(position, _)| *position <= offset) {
            Some(cursor) => cursor,
            None => (0, Unpack::new(Stream::of(self.disk.open(&self.path, Access::Read)?), self.length)?),
        };
        unpack.skip(offset - position)?;
        let count = unpack.read(bytes)?;
        *self.cursor.borrow_mut() = Some((offset + count as u64, unpack));
        Ok(count)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// A file, from its beginning on.
#[derive(Debug)]
pub(super) struct Stream {
    file: Box<dyn DiskFile>,
    position: u64,
    /// Ends the reading.
    stop: Arc<AtomicBool>,
}

impl Stream {
    pub(super) fn of(file: Box<dyn DiskFile>) -> Self {
        Self::until(file, Arc::default())
    }

    /// Reading fails once `stop` is set.
    pub(super) fn until(file: Box<dyn DiskFile>, stop: Arc<AtomicBool>) -> Self {
        Self { file, position: 0, stop }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        let count = self.file.read_at(bytes, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_all(self.file.as_ref(), bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether two files hold the same.
pub(super) fn same(one: &dyn DiskFile, other: &dyn DiskFile) -> io::Result<bool> {
    const CHUNK: usize = 256 * 1024;
    let (mut left, mut right, mut offset) = (vec![0; CHUNK], vec![0; CHUNK], 0);
    loop {
        let (count, others) = (read_full(one, &mut left, offset)?, read_full(other, &mut right, offset)?);
        if count != others || left.get(..count) != right.get(..count) {
            return Ok(false);
        }
        if count < CHUNK {
            return Ok(true);
        }
        offset += count as u64;
    }
}
