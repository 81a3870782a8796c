//! The system's disk, until a test makes it fail.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parent_proxy::store::disk::{Access, Disk, DiskFile, Lock, SystemDisk};

/// A disk that is full, or does not sync, while it is told so.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk(Arc<Faults>);

#[derive(Debug, Default)]
struct Faults {
    full: AtomicBool,
    unsynced: AtomicBool,
    read_only: AtomicBool,
    unreadable: AtomicBool,
}

impl FaultyDisk {
    /// Has no room from now on, or has room again.
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::SeqCst);
    }

    /// Fails to sync from now on, or syncs again. What it was given meanwhile may be there or not.
    pub fn set_failing_sync(&self, failing: bool) {
        self.0.unsynced.store(failing, Ordering::SeqCst);
    }
}

impl FaultyDisk {
    /// Lets nothing be changed from now on, as a file system that was mounted anew after an error; or lets it again.
    pub fn set_read_only(&self, read_only: bool) {
        self.0.read_only.store(read_only, Ordering::SeqCst);
    }

    /// Fails to read from now on, or reads again.
    pub fn set_failing_reads(&self, failing: bool) {
        self.0.unreadable.store(failing, Ordering::SeqCst);
    }
}

impl Faults {
    fn check_writable(&self) -> io::Result<()> {
        let read_only = self.read_only.load(Ordering::SeqCst);
        if read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }
}

impl Disk for FaultyDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        SystemDisk.make_directory(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        SystemDisk.list(directory)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        if access != Access::Read {
            self.0.check_writable()?;
        }
        if matches!(access, Access::Create | Access::CreateNew) && self.0.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Box::new(FaultyFile { file: SystemDisk.open(path, access)?, faults: Arc::clone(&self.0) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.check_writable()?;
        SystemDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.check_writable()?;
        SystemDisk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        SystemDisk.sync_directory(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        SystemDisk.lock(path)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn DiskFile>,
    faults: Arc<Faults>,
}

impl DiskFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.faults.unreadable.load(Ordering::SeqCst) {
            return Err(io::Error::other("told not to read"));
        }
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.faults.check_writable()?;
        if self.faults.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if self.faults.unsynced.load(Ordering::SeqCst) {
            return Err(io::Error::other("told not to sync"));
        }
        self.file.sync()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.faults.check_writable()?;
        self.file.truncate(length)
    }
}
