//! Old segments: packed, and moved to the archive. Only closed segments that are not the last, so nobody writes to them.
//!
//! A segment moves on in these steps:
//!
//! 1. On a thread of its own, the file `moving` is written in the directory that the segment goes to, and synced; it is read
//!    back and compared with what it was made of, byte by byte. A crash here leaves `moving`; opening the store removes it.
//! 2. It gets its name, and its directory is synced. A crash here leaves the segment twice: opening the store compares the
//!    two and goes on with step 3 where they are the same. Where they are not, both stay, and the earlier one is used.
//! 3. The earlier file is removed, and its directory is synced.
//!
//! Whatever fails before step 3 changes nothing, is said, and is tried again later: the log does not need it.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tracing::{info, warn};
use transcode_confidential::{audit::segment::SegmentName, time::Timestamp};

use super::{
    disk::{Access, Disk, DiskFile},
    files::Files,
    place::{PackedFile, Place, Stream, same},
};
use crate::config::StoreConfig;

/// How long to wait after something failed.
const RETRY: Duration = Duration::from_secs(60);

/// What is known of the segments that may move on.
#[derive(Debug, Default)]
pub(super) struct Aging {
    /// Places of the segments that are no longer where they were written.
    places: BTreeMap<SegmentName, Place>,
    /// When the last event of a closed segment was; `None` where the segment was closed since the last tick.
    closed: BTreeMap<SegmentName, Option<Timestamp>>,
    moving: Option<Moving>,
    failed: Option<Instant>,
}

/// A copy under way.
#[derive(Debug)]
struct Moving {
    name: SegmentName,
    from: Place,
    to: Place,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

/// Two threads that write the same `moving` must never be: who opens the log anew waits for the one that is under way.
impl Drop for Aging {
    fn drop(&mut self) {
        if let Some(moving) = self.moving.take() {
            moving.stop.store(true, Ordering::Relaxed);
            let _ = moving.thread.join();
        }
    }
}

impl Aging {
    /// A segment was found somewhere.
    pub(super) fn found(&mut self, name: SegmentName, place: Place) {
        if place != Place::WRITTEN {
            self.places.insert(name, place);
        }
    }

    /// A segment is closed; `None` for now.
    pub(super) fn closed(&mut self, name: SegmentName, when: Option<Timestamp>) {
        self.closed.insert(name, when);
    }

    pub(super) fn place(&self, name: SegmentName) -> Place {
        self.places.get(&name).copied().unwrap_or_default()
    }

    /// How many segments are packed, and how many in the archive.
    pub(super) fn counts(&self) -> (u64, u64) {
        let count = |is: fn(&Place) -> bool| self.places.values().filter(|place| is(place)).count() as u64;
        (count(|place| place.packed), count(|place| place.archived))
    }

    /// Whether the last try failed.
    pub(super) const fn is_failing(&self) -> bool {
        self.failed.is_some()
    }

    /// Whether a copy is under way.
    pub(super) const fn is_moving(&self) -> bool {
        self.moving.is_some()
    }

    /// The segment was dropped.
    pub(super) fn forget(&mut self, name: SegmentName) {
        self.places.remove(&name);
        self.closed.remove(&name);
    }

    /// One step on. Gives the segment whose place has changed. `last` stays where it is.
    pub(super) fn tick(
        &mut self,
        files: &Files,
        settings: &StoreConfig,
        last: Option<SegmentName>,
        now: Timestamp,
    ) -> Option<SegmentName> {
        self.closed.values_mut().for_each(|when| *when = when.or(Some(now)));
        match self.moving.take() {
            Some(moving) if moving.thread.is_finished() => self.finish(files, moving),
            Some(moving) => {
                self.moving = Some(moving);
                None
            }
            None if self.failed.is_some_and(|failed| failed.elapsed() < RETRY) => None,
            None => {
                self.start(files, settings, last, now);
                None
            }
        }
    }

    fn start(&mut self, files: &Files, settings: &StoreConfig, last: Option<SegmentName>, now: Timestamp) {
        let due = self.closed.iter().filter(|(name, _)| Some(**name) != last).find_map(|(name, closed)| {
            let from = self.place(*name);
            let age = now.since((*closed)?);
            let is_due = |after: Option<Duration>| after.is_some_and(|after| age >= after);
            let archived = from.archived || files.archive.is_some() && is_due(settings.archive_after);
            let to = Place { archived, packed: from.packed || is_due(settings.pack_after) };
            (to != from).then_some((*name, from, to))
        });
        let Some((name, from, to)) = due else { return };
        let (disk, source, moving) = (Arc::clone(&files.disk), files.at(name, from), files.moving(to));
        let pack = to.packed && !from.packed;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let copying = move || copy(&disk, &source, &moving, pack, stopped);
        match thread::Builder::new().name("aging".to_owned()).spawn(copying) {
            Ok(thread) => self.moving = Some(Moving { name, from, to, stop, thread }),
            Err(error) => self.fail(name, &error),
        }
    }

    fn finish(&mut self, files: &Files, moving: Moving) -> Option<SegmentName> {
        let Moving { name, from, to, thread, .. } = moving;
        let copied = thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        // It may have been dropped meanwhile.
        let is_there = self.closed.contains_key(&name);
        let named = copied.and_then(|()| if is_there { appear(files, name, to) } else { Err(gone()) });
        if let Err(error) = named {
            // What there is of it takes room and means nothing.
            let _ = files.disk.remove(&files.moving(to));
            if is_there {
                self.fail(name, &error);
            }
            return None;
        }
        self.places.insert(name, to);
        self.failed = None;
        info!(segment = %name, packed = to.packed, archived = to.archived, "an old segment was packed or moved");
        if let Err(error) = vanish(files, name, from) {
            // Twice is no harm: opening the store goes on from here.
            self.fail(name, &error);
        }
        Some(name)
    }

    fn fail(&mut self, name: SegmentName, error: &io::Error) {
        warn!(segment = %name, %error, "an old segment cannot be packed or moved; the next try is in a minute");
        self.failed = Some(Instant::now());
    }
}

impl Files {
    /// Decides between the files of one segment, given in the order of [`Place`]. Gives the one to use, and whether the others
    /// are gone.
    pub(super) fn settle(&self, name: SegmentName, places: &[Place]) -> io::Result<(Place, bool)> {
        let mut rest = places.iter().rev().copied();
        let (Some(furthest), Some(first)) = (rest.next(), places.first().copied()) else {
            return Ok((Place::WRITTEN, true));
        };
        for place in rest {
            let kept = self.open_at(name, furthest)?;
            match same(self.open_at(name, place)?.as_ref(), kept.as_ref()) {
                Ok(true) => {}
                Ok(false) => return Ok((first, false)),
                Err(error) if packed::is_damage(&error) => return Ok((first, false)),
                Err(error) => return Err(error),
            }
        }
        if first != furthest {
            // Its name may be in the cache only.
            self.disk.sync_directory(self.directory_of(furthest))?;
        }
        for place in places.iter().filter(|place| **place != furthest) {
            info!(segment = %name, "a segment is there twice; the file that it was moved from goes");
            vanish(self, name, *place)?;
        }
        Ok((furthest, true))
    }
}

/// Step 1.
fn copy(disk: &Arc<dyn Disk>, source: &Path, moving: &Path, pack: bool, stop: Arc<AtomicBool>) -> io::Result<()> {
    match disk.remove(moving) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut from = Stream::until(disk.open(source, Access::Read)?, stop);
    let mut to = Stream::of(disk.open(moving, Access::CreateNew)?);
    if pack {
        packed::pack(&mut from, &mut to)?;
    } else {
        io::copy(&mut from, &mut to)?;
    }
    to.sync()?;
    let original = disk.open(source, Access::Read)?;
    let copy: Box<dyn DiskFile> =
        if pack { Box::new(PackedFile::open(disk, moving.to_owned())?) } else { disk.open(moving, Access::Read)? };
    if same(original.as_ref(), copy.as_ref())? { Ok(()) } else { Err(io::Error::other("the copy is not the original")) }
}

/// Step 2.
fn appear(files: &Files, name: SegmentName, to: Place) -> io::Result<()> {
    files.disk.rename(&files.moving(to), &files.at(name, to))?;
    files.disk.sync_directory(files.directory_of(to))
}

/// Step 3.
fn vanish(files: &Files, name: SegmentName, from: Place) -> io::Result<()> {
    files.disk.remove(&files.at(name, from))?;
    files.disk.sync_directory(files.directory_of(from))
}

fn gone() -> io::Error {
    io::ErrorKind::NotFound.into()
}
