//! A disk in memory that fails when it is told to, and forgets as disks do when the power goes.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use parent_proxy::store::disk::{Access, Disk, DiskFile, Lock};

const SECTOR: usize = 512;
/// What a file system gives a file at a time.
const BLOCK: usize = 1024;

/// A handle on the disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    /// Names as programs see them, and as they lie on the disk.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes so far: everything that may need the disk.
    operations: usize,
    faults: BTreeMap<usize, Fault>,
    /// The operation after which the machine is dead.
    crash_after: Option<usize>,
    /// What the next write answers, after one that was cut short.
    next_write: Option<io::ErrorKind>,
    /// Bytes that fit.
    capacity: Option<usize>,
    locked: bool,
    history: Vec<String>,
}

#[derive(Debug, Default)]
struct Inode {
    /// What programs read.
    cache: Vec<u8>,
    /// What survives.
    disk: Vec<u8>,
    /// What a sync would bring from one to the other.
    dirty: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

/// What goes wrong with one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A write writes half and says so.
    Short,
    /// There is no room for the second half of a write, or for a name.
    Full,
    /// A write fails after its first half; a sync fails and forgets what it should have written; a name cannot be changed.
    Failed,
}

/// What is left when the machine comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reboot {
    /// Everything that was synced, and nothing else.
    Lost,
    /// Everything.
    Kept,
    /// Of each unsynced write the new blocks up to some sector, and with or without what went into the block that the file
    /// ended in, chosen by the number; names kept. That is what journalling file systems leave.
    Torn(u64),
    /// It was only the process that died: everything is still in the cache.
    Killed,
}

impl FaultyDisk {
    pub(crate) fn fail(&self, operation: usize, fault: Fault) {
        self.state().faults.insert(operation, fault);
    }

    pub(crate) fn crash_after(&self, operation: usize) {
        self.state().crash_after = Some(operation);
    }

    pub(crate) fn hold(&self, capacity: usize) {
        self.state().capacity = Some(capacity);
    }

    pub(crate) fn operations(&self) -> usize {
        self.state().operations
    }

    pub(crate) fn history(&self) -> Vec<String> {
        self.state().history.clone()
    }

    pub(crate) fn used(&self) -> usize {
        self.state().used()
    }

    /// The machine comes back, with no more faults to come.
    pub(crate) fn reboot(&self, how: Reboot) {
        let mut state = self.state();
        (state.crash_after, state.next_write, state.locked) = (None, None, false);
        state.faults.clear();
        if how == Reboot::Killed {
            return;
        }
        match how {
            Reboot::Lost => state.names = state.durable_names.clone(),
            _ => state.durable_names = state.names.clone(),
        }
        for (number, inode) in state.inodes.iter_mut().enumerate() {
            inode.settle(how, number as u64);
        }
    }

    /// The files right under a directory, as programs see them.
    pub(crate) fn files(&self, directory: &Path) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(directory));
        inside
            .map(|(path, inode)| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, state.inodes[*inode].cache.clone())
            })
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// Counts an operation; gives what goes wrong with it.
    fn begin(&mut self, what: &str, path: &str) -> io::Result<Option<Fault>> {
        if self.crash_after.is_some_and(|last| self.operations >= last) {
            return Err(io::Error::other("the machine is dead"));
        }
        self.operations += 1;
        self.history.push(format!("{what} {path}"));
        Ok(self.faults.remove(&self.operations))
    }

    fn name_change(&mut self, what: &str, path: &Path) -> io::Result<()> {
        match self.begin(what, &path.display().to_string())? {
            None | Some(Fault::Short) => Ok(()),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Failed) => Err(io::Error::other("injected")),
        }
    }

    fn used(&self) -> usize {
        self.names.values().map(|inode| self.inodes[*inode].cache.len()).sum()
    }
}

impl Inode {
    fn settle(&mut self, how: Reboot, number: u64) {
        let changes = std::mem::take(&mut self.dirty);
        let dice = |seed: u64| (seed ^ number << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let ends = changes.iter().map(|change| match change {
            Change::Write { offset, bytes } => offset + bytes.len(),
            Change::Truncate(length) => *length,
        });
        // Of the blocks that are new, those up to some sector; what went into the old last block, or what was there before.
        let (old_end, new_end) = (self.disk.len(), ends.max().unwrap_or(0));
        let old_block = old_end.next_multiple_of(BLOCK);
        for change in changes {
            match (how, change) {
                (Reboot::Lost, _) => {}
                (Reboot::Torn(seed), Change::Write { offset, bytes }) => {
                    let sectors = (new_end / SECTOR + 2).saturating_sub(old_end / SECTOR).max(1);
                    let cut = (old_end / SECTOR + dice(seed) as usize / 2 % sectors) * SECTOR;
                    let end = (offset + bytes.len()).min(cut.max(old_end));
                    let start = if dice(seed) & 1 == 0 { offset.max(old_block) } else { offset };
                    if start < end {
                        let bytes = bytes[start - offset..end - offset].to_vec();
                        apply(&mut self.disk, &Change::Write { offset: start, bytes });
                    }
                }
                (_, change) => apply(&mut self.disk, &change),
            }
        }
        self.cache = self.disk.clone();
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => {
            content.resize(content.len().max(offset + bytes.len()), 0);
            content[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Change::Truncate(length) => content.resize(*length, 0),
    }
}

impl Disk for FaultyDisk {
    fn make_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        Ok(self.files(directory).into_keys().collect())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let found = state.names.get(path).copied();
        let inode = match (found, access) {
            (Some(_), Access::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, Access::Read | Access::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, Access::Create | Access::CreateNew) => {
                state.name_change("create", path)?;
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.names.insert(path.to_owned(), inode);
                inode
            }
        };
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        Ok(Box::new(FaultyFile { disk: self.clone(), inode, name }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.name_change("rename", from)?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.name_change("remove", path)?;
        state.names.remove(path);
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.name_change("sync directory", path)?;
        let inside = |name: &Path| name.parent() == Some(path);
        let kept: BTreeMap<PathBuf, usize> =
            state.durable_names.iter().filter(|(name, _)| !inside(name)).map(|(n, i)| (n.clone(), *i)).collect();
        let now = state.names.iter().filter(|(name, _)| inside(name)).map(|(n, i)| (n.clone(), *i));
        state.durable_names = now.chain(kept).collect();
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state();
        if std::mem::replace(&mut state.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Held(self.clone())))
    }
}

#[derive(Debug)]
struct Held(FaultyDisk);

impl Lock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    inode: usize,
    name: String,
}

impl DiskFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].cache.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let rest = state.inodes[self.inode].cache.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let fault = state.begin("write", &self.name)?;
        if let Some(kind) = state.next_write.take() {
            return Err(kind.into());
        }
        let mut count = bytes.len();
        match fault {
            None => {}
            Some(Fault::Short) => count = count.div_ceil(2),
            Some(fault) => {
                count = count.div_ceil(2);
                let kind = if fault == Fault::Full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
                state.next_write = Some(kind);
            }
        }
        let grows = (offset as usize + count).saturating_sub(state.inodes[self.inode].cache.len());
        if let Some(capacity) = state.capacity {
            let room = capacity.saturating_sub(state.used());
            count -= grows.saturating_sub(room).min(count);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let change = Change::Write { offset: offset as usize, bytes: bytes[..count].to_vec() };
        let inode = &mut state.inodes[self.inode];
        apply(&mut inode.cache, &change);
        inode.dirty.push(change);
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.begin("sync", &self.name)?;
        let inode = &mut state.inodes[self.inode];
        let dirty = std::mem::take(&mut inode.dirty);
        if matches!(fault, Some(Fault::Full | Fault::Failed)) {
            // The system has given these writes up: the next sync succeeds without them.
            return Err(io::Error::other("injected"));
        }
        dirty.iter().for_each(|change| apply(&mut inode.disk, change));
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.begin("truncate", &self.name)?;
        if matches!(fault, Some(Fault::Full | Fault::Failed)) {
            return Err(io::Error::other("injected"));
        }
        let inode = &mut state.inodes[self.inode];
        let change = Change::Truncate(length as usize);
        apply(&mut inode.cache, &change);
        inode.dirty.push(change);
        let dirty = std::mem::take(&mut inode.dirty);
        dirty.iter().for_each(|change| apply(&mut inode.disk, change));
        Ok(())
    }
}
