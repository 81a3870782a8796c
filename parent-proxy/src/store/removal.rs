//! What leaves the open log: an unsealed tail, set aside, and what the enclave has given up.

use tracing::{info, warn};
use transcode_confidential::{
    audit::segment::{SegmentHeader, SegmentName},
    ids::Sequence,
    protocol::host::HostError,
    time::Timestamp,
};

use super::{
    log::{OpenLog, Unstored},
    place::Place,
};

/// What was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quarantined {
    Nothing,
    Tail,
    /// The whole segment: another one is the last now, and the log must be opened anew to see how that one ends.
    Segment,
}

impl OpenLog {
    /// Sets aside the tail of the last segment; done already where there is none. Only where what is settled ends exactly at
    /// `offset`: sealed batches are never set aside.
    pub(super) fn quarantine(
        &mut self,
        name: SegmentName,
        offset: u64,
        now: Timestamp,
    ) -> Result<Quarantined, Unstored> {
        let last = self.last.as_mut().filter(|last| last.name == name).ok_or(Unstored::Refused(HostError::NotFound))?;
        let refuse = Err(Unstored::Refused(HostError::Refused));
        // A segment without a seal holds nothing but its header, if that: it goes as a whole.
        let whole = last.settled == 0;
        match offset {
            _ if whole && offset <= SegmentHeader::LEN as u64 => {}
            _ if whole || offset != last.settled => return refuse,
            _ if offset == last.length => return Ok(Quarantined::Nothing),
            _ => {}
        }
        let keep = last.settled;
        warn!(segment = %name, offset = keep, bytes = last.length - keep, "setting aside what is not sealed");
        self.files.set_aside(name, last.file.as_ref(), keep, now)?;
        if whole {
            self.files.disk.remove(&self.files.at(name, Place::WRITTEN))?;
            self.files.disk.sync_directory(&self.files.directory)?;
            return Ok(Quarantined::Segment);
        }
        last.length = keep;
        self.segments.insert(name, keep);
        Ok(Quarantined::Tail)
    }

    /// Drops the segments before the one that begins with `below`. Gives how many there were.
    ///
    /// 1. The hashes of what will be missing are made durable. A crash here leaves everything.
    /// 2. The segments are removed, the oldest first. A crash here leaves the newest of them: whoever reads the log passes over
    ///    them, and the enclave asks again.
    /// 3. The directory is synced. From here on they do not come back.
    pub(super) fn prune(&mut self, below: Sequence) -> Result<usize, Unstored> {
        let before: Vec<SegmentName> = self.segments.keys().copied().take_while(|name| name.first < below).collect();
        if before.is_empty() {
            return Ok(0);
        }
        if !self.segments.keys().any(|name| name.first == below) {
            return Err(Unstored::Refused(HostError::NotFound));
        }
        self.hashes.keep()?;
        self.reading.take();
        let archived = before.iter().any(|name| self.aging.place(*name).archived);
        for name in &before {
            self.files.disk.remove(&self.files.at(*name, self.aging.place(*name)))?;
            self.segments.remove(name);
            self.snapshots.remove(name);
            self.aging.forget(*name);
        }
        for archived in [false, true].into_iter().take(1 + usize::from(archived)) {
            self.files.disk.sync_directory(self.files.directory_of(Place { archived, packed: false }))?;
        }
        info!(segments = before.len(), below = below.0, "dropped segments that the enclave gave up");
        Ok(before.len())
    }
}
