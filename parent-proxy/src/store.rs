//! The log on disk. Trusted for one thing: that what it acknowledged is there after a crash.
//!
//! What it does about a failing disk, in one sentence: a failed write or sync ends the use of the open log, and the next
//! `Hello` of the enclave opens it anew by the same code that opens it at start ([`open`]'s steps say what that does).
//! The order of writes stands at the functions that do them: [`segment`], [`files`], [`open`], [`aging`].

mod aging;
mod batch;
pub mod disk;
mod files;
mod hashes;
mod log;
mod open;
mod place;
mod reading;
mod removal;
mod reserve;
mod scan;
mod segment;
mod worker;

use std::{fmt, io, path::PathBuf, sync::Arc, time::Instant};

use thiserror::Error;
use tracing::{info, warn};
use transcode_confidential::{
    audit::{segment::SegmentName, tree::Node},
    ids::{LogId, Sequence},
    protocol::host::{Durable, HostError, SegmentInfo},
    time::Clock,
};

pub use batch::Batch;
use disk::{Disk, Lock};
use files::Files;
use log::{OpenLog, Stored, Unstored};
use removal::Quarantined;
pub(crate) use worker::{StoreHandle, Ticket};

use crate::{config::StoreConfig, metrics::Metrics};

/// A directory with a log in it, or with none yet.
pub struct Store {
    files: Files,
    settings: StoreConfig,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// `None` after the disk failed.
    log: Option<OpenLog>,
    _lock: Box<dyn Lock>,
}

/// Why a store cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    #[error("{} is open in another process", .0.display())]
    Locked(PathBuf),
    /// The disk failed.
    #[error("cannot open the store {}: {source}", directory.display())]
    Io {
        /// The store's directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Store {
    /// Takes the lock, which it keeps until it is dropped, and opens the log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(
        disk: Arc<dyn Disk>,
        settings: StoreConfig,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let directory = settings.directory.clone();
        let failed = |source| StoreError::Io { directory: directory.clone(), source };
        let files = Files { disk, directory: directory.clone(), archive: settings.archive.clone() };
        files.make_directory().map_err(failed)?;
        let lock = files.disk.lock(&files.lock()).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::Locked(directory.clone()),
            _ => failed(error),
        })?;
        let mut store = Self { files, settings, clock, metrics, log: None, _lock: lock };
        store.reopen().map_err(failed)?;
        Ok(store)
    }

    /// How far the log is on disk; opens it anew where the disk had failed. `None` for an empty store.
    ///
    /// # Errors
    /// [`HostError::StorageFailed`].
    pub fn durable(&mut self) -> Result<Option<(LogId, Durable)>, HostError> {
        if self.log.is_none() {
            self.reopen().map_err(|error| {
                warn!(%error, "the store cannot be opened anew");
                HostError::StorageFailed
            })?;
        }
        Ok(self.open_log()?.durable())
    }

    /// Stores batches in their order and says of each what became of it, in that order.
    pub fn append(&mut self, batches: &[Batch], mut answer: impl FnMut(Result<Durable, HostError>)) {
        let metrics = Arc::clone(&self.metrics);
        let Some(log) = &mut self.log else {
            batches.iter().for_each(|_| answer(Err(HostError::StorageFailed)));
            return;
        };
        let start = Instant::now();
        let mut bytes = batches.iter().map(|batch| batch.bytes.len() as u64);
        let result = log.append(batches, |result| {
            let length = bytes.next().unwrap_or_default();
            match result {
                Ok(Stored::Appended(durable)) => {
                    metrics.store_batches_total.increment();
                    metrics.store_bytes_total.add(length);
                    metrics.store_events.set(durable.size);
                }
                Ok(Stored::Again(_)) => metrics.store_resent_total.increment(),
                Err(HostError::StorageFull) => metrics.store_full_total.increment(),
                Err(HostError::StorageFailed) => {}
                Err(_) => metrics.store_out_of_order_total.increment(),
            }
            answer(result.map(|(Stored::Appended(durable) | Stored::Again(durable))| durable));
        });
        metrics.store_sync_seconds.observe(start.elapsed());
        metrics.store_reserve_released.set(u64::from(log.reserve.is_missing()));
        if result.is_err() {
            self.give_up();
        }
    }

    /// Segments after the given one, in the order of the log.
    ///
    /// # Errors
    /// [`HostError::StorageFailed`].
    pub fn segments(&self, after: Option<SegmentName>) -> Result<Vec<SegmentInfo>, HostError> {
        Ok(self.open_log()?.segments(after))
    }

    /// Bytes of a segment, fewer than asked only at its end or at the protocol's limit.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::StorageFailed`].
    pub fn read(&self, name: SegmentName, offset: u64, length: usize) -> Result<Vec<u8>, HostError> {
        self.open_log()?.read(name, offset, length)
    }

    /// The segment that begins with the newest snapshot. Nobody believes it.
    ///
    /// # Errors
    /// [`HostError::StorageFailed`].
    pub fn snapshot(&self) -> Result<Option<SegmentName>, HostError> {
        let found = self.open_log()?.snapshot();
        Ok(found.filter(|_| self.settings.offer_snapshots))
    }

    /// Drops the segments before the one that begins with `below`; done already where there are none.
    ///
    /// # Errors
    /// [`HostError::NotFound`] where no segment begins there; [`HostError::StorageFull`], [`HostError::StorageFailed`].
    pub fn prune(&mut self, below: Sequence) -> Result<(), HostError> {
        match self.log.as_mut().ok_or(HostError::StorageFailed)?.prune(below) {
            Ok(_) => Ok(()),
            Err(Unstored::Refused(reason)) => Err(reason),
            // Room is needed for the hashes only, and before anything is removed.
            Err(Unstored::Broken(error)) if disk::is_full(&error) => Err(HostError::StorageFull),
            Err(Unstored::Broken(error)) => {
                warn!(%error, "segments cannot be dropped");
                self.give_up();
                Err(HostError::StorageFailed)
            }
        }
    }

    /// Sets aside the unsealed tail of the last segment.
    ///
    /// # Errors
    /// [`HostError::Refused`] unless the sealed part ends exactly at `offset`; [`HostError::NotFound`] unless it is the last
    /// segment; [`HostError::StorageFull`], [`HostError::StorageFailed`].
    pub fn quarantine(&mut self, name: SegmentName, offset: u64) -> Result<(), HostError> {
        let now = self.clock.now();
        match self.log.as_mut().ok_or(HostError::StorageFailed)?.quarantine(name, offset, now) {
            Ok(Quarantined::Nothing) => return Ok(()),
            Ok(Quarantined::Tail) => {}
            Ok(Quarantined::Segment) => {
                self.log = None;
                self.durable()?;
            }
            Err(Unstored::Refused(reason)) => return Err(reason),
            // Nothing was written to the segment: a copy that failed for want of room can be tried again.
            Err(Unstored::Broken(error)) if disk::is_full(&error) => return Err(HostError::StorageFull),
            Err(Unstored::Broken(error)) => {
                warn!(%error, "a tail cannot be set aside");
                self.give_up();
                return Err(HostError::StorageFailed);
            }
        }
        self.metrics.store_quarantined_total.increment();
        Ok(())
    }

    /// An inclusion proof, bottom up.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::StorageFailed`].
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Node>, HostError> {
        self.open_log()?.inclusion(index, size)
    }

    /// A consistency proof.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::StorageFailed`].
    pub fn consistency(&self, old: u64, new: u64) -> Result<Vec<Node>, HostError> {
        self.open_log()?.consistency(old, new)
    }

    /// To be called about once a second: closes a segment that is old enough, packs and moves the older ones, restores the
    /// disk reserve.
    pub fn tick(&mut self) {
        let Some(log) = &mut self.log else { return };
        let result = log.tick(self.clock.now());
        self.metrics.store_reserve_released.set(u64::from(log.reserve.is_missing()));
        log.count(&self.metrics);
        if result.is_err() {
            self.give_up();
        }
    }

    /// Whether an old segment is being packed or moved. The ticks finish what is.
    pub fn is_moving(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.aging.is_moving())
    }

    fn open_log(&self) -> Result<&OpenLog, HostError> {
        self.log.as_ref().ok_or(HostError::StorageFailed)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let log = open::open(self.files.clone(), self.settings.clone())?;
        self.metrics.store_open.set(1);
        self.metrics.store_events.set(log.head.durable.size);
        self.metrics.store_damaged_segments.set(log.damaged);
        self.metrics.store_reserve_released.set(u64::from(log.reserve.is_missing()));
        log.count(&self.metrics);
        info!(
            segments = log.segments.len(),
            events = log.head.durable.size,
            damaged = log.damaged,
            "the store is open"
        );
        self.log = Some(log);
        Ok(())
    }

    fn give_up(&mut self) {
        self.log = None;
        self.metrics.store_open.set(0);
        self.metrics.store_failed_total.increment();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("settings", &self.settings).field("log", &self.log).finish_non_exhaustive()
    }
}
