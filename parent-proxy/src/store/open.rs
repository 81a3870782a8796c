//! Opening: find out what there is, make it durable, finish what was the store's own work. Nothing else is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use tracing::{info, warn};
use transcode_confidential::{audit::segment::SegmentName, ids::LeafHash, protocol::host::Durable};

use super::{
    aging::Aging,
    batch::Head,
    disk::{DiskFile, read_full, write_all},
    files::Files,
    hashes::HashIndex,
    log::{JOIN_LIMIT, OpenLog},
    place::Place,
    reserve::Reserve,
    scan::{Damage, Scanned, scan},
    segment::LastSegment,
};
use crate::config::StoreConfig;

/// What was written last is at most this long: joined batches, the last of them beyond the limit, and a header.
const REWRITTEN: u64 = 2 * JOIN_LIMIT as u64;

/// Opens the log in a directory.
///
/// 1. The directory is made where it is missing. What is left of a segment that was being made is removed: it was never
///    acknowledged. So is what is left of a copy; where a copy is whole and has its name, what it was made of goes.
/// 2. Every segment is read: structure, check sums, one following on the other. Damage is reported and left alone; the enclave
///    and the auditor judge it.
/// 3. What was written last is written again, byte for byte, and synced, and so is the directory. After a failed fdatasync the
///    system may show bytes that it no longer means to write; counting them as durable would be a lie.
/// 4. A footer of ours that is half there is completed. Any other tail behind the last seal stays until the enclave asks for
///    it to be set aside or sends the batch that it is the start of.
pub(super) fn open(files: Files, settings: StoreConfig) -> io::Result<OpenLog> {
    files.make_directory()?;
    match files.disk.remove(&files.staged()) {
        Ok(()) => info!("removed a segment that was being made when the proxy stopped"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    files.check_archive()?;
    let mut hashes = HashIndex::open(files.disk.as_ref(), &files.hashes());
    let mut segments = BTreeMap::new();
    let mut snapshots = BTreeSet::new();
    let mut found = Found { head: Head::EMPTY, batch: None, damaged: 0 };
    let (mut last, mut aging) = (None, Aging::default());
    for (name, places) in files.segments()? {
        let (place, alone) = files.settle(name, &places)?;
        if !alone {
            found.damaged += 1;
            warn!(segment = %name, "a segment is there twice, and not the same; the earlier file is used");
        }
        aging.found(name, place);
        let file = files.open_at(name, place)?;
        let scanned = scan(file.as_ref(), &mut |position, leaf| hashes.place(position, leaf))?;
        if let Some(when) = scanned.newest.filter(|_| alone && scanned.closed && scanned.damage.is_none()) {
            aging.closed(name, Some(when));
        }
        segments.insert(name, scanned.length);
        if let (None, Some(before)) = (&last, &scanned.before) {
            hashes.begin_behind(before);
        }
        if scanned.snapshot && scanned.durable.is_some() {
            snapshots.insert(name);
        }
        found.add(name, &scanned, last.as_ref().map(|(_, _, scanned)| scanned));
        last = Some((name, file, scanned));
    }
    let last = match last {
        None => None,
        Some((name, file, scanned)) => {
            // In any other place it was durable before it got there, and nothing is written.
            let is_ours = aging.place(name) == Place::WRITTEN;
            if is_ours {
                make_durable(file.as_ref(), &scanned)?;
            }
            let mut segment = LastSegment::take_up(name, file, &scanned)?;
            if let Some(durable) = scanned.durable.filter(|_| is_ours)
                && segment.complete_footer(durable)?
            {
                info!(segment = %name, closed = segment.closed, "found half a footer");
                segments.insert(name, segment.length);
            }
            Some(segment)
        }
    };
    files.disk.sync_directory(&files.directory)?;
    let reserve = Reserve::open(files.disk.as_ref(), files.reserve(), settings.reserve);
    let Found { head, batch, damaged } = found;
    Ok(OpenLog {
        files,
        settings,
        head,
        segments,
        last,
        last_batch: batch,
        hashes,
        reserve,
        snapshots,
        aging,
        reading: None.into(),
        damaged,
        refused_full: false,
    })
}

/// What the segments read so far come to.
struct Found {
    head: Head,
    /// The last batch: where it lies.
    batch: Option<(SegmentName, u64, u64)>,
    damaged: u64,
}

impl Found {
    fn add(&mut self, name: SegmentName, scanned: &Scanned, before: Option<&Scanned>) {
        if let Some(Damage { offset, problem }) = &scanned.damage {
            self.damaged += 1;
            // In the last segment this is what a crash leaves; the next segment's arrival would make it worse.
            warn!(segment = %name, offset, %problem, "a segment cannot be read to its end");
        }
        if before.is_some_and(|before| before.has_tail() || !before.closed) {
            self.damaged += 1;
            warn!(segment = %name, "the segment before this one does not end as a closed segment does");
        }
        let Some(header) = scanned.header else { return };
        let follows = header.name() == name
            && self.head.log.is_none_or(|log| {
                log == header.log_id
                    && header.epoch >= self.head.epoch
                    && self.head.durable == Durable { size: header.first.0, last: header.previous }
            })
            && (self.head.log.is_some() || header.first.0 > 0 || header.previous == LeafHash::ZERO);
        if !follows {
            self.damaged += 1;
            warn!(segment = %name, "a segment does not follow on the one before it, or belongs to another log");
        }
        if let Some(durable) = scanned.durable {
            self.head = Head { log: Some(header.log_id), epoch: header.epoch, durable };
            self.batch = Some((name, scanned.batch_start, scanned.sealed_end));
        }
    }
}

/// Writes the end of the last segment again and syncs it. The tail is left as it is.
fn make_durable(file: &dyn DiskFile, scanned: &Scanned) -> io::Result<()> {
    let start = scanned.settled.saturating_sub(REWRITTEN);
    let mut bytes = vec![0; usize::try_from(scanned.settled - start).unwrap_or_default()];
    if read_full(file, &mut bytes, start)? < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    write_all(file, &bytes, start)?;
    file.sync()
}
