//! The last segment, the only one that is ever written.

use std::{io, time::Instant};

use sha2::{Digest as _, Sha256};
use transcode_confidential::{
    audit::segment::{Footer, Record, RecordKind, SegmentHeader, SegmentName},
    ids::Digest,
    protocol::host::Durable,
};

use super::{
    disk::{Access, DiskFile, is_full, read_full, write_all},
    files::Files,
    scan::Scanned,
};

const CHUNK: usize = 256 * 1024;

/// The last segment.
#[derive(Debug)]
pub(super) struct LastSegment {
    pub(super) name: SegmentName,
    pub(super) file: Box<dyn DiskFile>,
    /// Where the last seal ends.
    sealed_end: u64,
    /// Where what is settled ends: the checkpoints that follow right on that seal and a footer included. What follows up to
    /// `length` is an unsealed tail.
    pub(super) settled: u64,
    pub(super) length: u64,
    pub(super) closed: bool,
    /// SHA-256 of the file up to `sealed_end`.
    content: Sha256,
    since: Instant,
}

/// Why something was not written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// No room. Nothing changed.
    Full,
    /// The disk failed: what lies on it is not known.
    Failed(io::Error),
}

impl LastSegment {
    /// Takes up a segment that was scanned.
    pub(super) fn take_up(name: SegmentName, file: Box<dyn DiskFile>, scanned: &Scanned) -> io::Result<Self> {
        let Scanned { sealed_end, settled, length, closed, .. } = *scanned;
        let content = Sha256::new();
        let mut segment = Self { name, file, sealed_end: 0, settled, length, closed, content, since: Instant::now() };
        segment.digest_up_to(sealed_end)?;
        Ok(segment)
    }

    /// Starts a segment with its first batches. The segment appears under its name only when header and batches are whole.
    ///
    /// 1. The file `new` is made with header and batches, and synced. A crash here leaves `new`; opening the store removes it:
    ///    nobody was told of these batches, and the enclave sends them again.
    /// 2. It gets its name. A crash here may keep or lose the name; kept, the batches are durable before anybody was told,
    ///    which is always allowed.
    /// 3. The directory is synced. From here on the batches may be acknowledged.
    pub(super) fn start(files: &Files, header: &SegmentHeader, batches: &[u8]) -> Result<Self, Unwritten> {
        let name = header.name();
        let bytes = [&header.to_bytes(), batches].concat();
        let staged = || {
            let _ = files.disk.remove(&files.staged());
            let file = files.disk.open(&files.staged(), Access::CreateNew)?;
            write_all(file.as_ref(), &bytes, 0)?;
            Ok(file)
        };
        let file = staged().map_err(|error: io::Error| {
            // Whatever there is of it takes room and means nothing.
            let _ = files.disk.remove(&files.staged());
            Unwritten::of(error)
        })?;
        file.sync().map_err(Unwritten::Failed)?;
        files.disk.rename(&files.staged(), &files.segment(name)).map_err(Unwritten::Failed)?;
        files.disk.sync_directory(&files.directory).map_err(Unwritten::Failed)?;
        let end = bytes.len() as u64;
        let content = Sha256::new().chain_update(&bytes);
        Ok(Self {
            name,
            file,
            sealed_end: end,
            settled: end,
            length: end,
            closed: false,
            content,
            since: Instant::now(),
        })
    }

    /// Where batches with these bytes go: behind what is settled, or over a tail that is their own beginning. `None` where
    /// another tail lies there, or nothing at all is settled.
    pub(super) fn place_for(&self, bytes: &[u8]) -> io::Result<Option<u64>> {
        if self.settled == 0 {
            return Ok(None);
        }
        // A checkpoint behind the last seal may be the first record of a batch that was cut off behind it.
        for place in [self.sealed_end, self.settled] {
            if self.rest_begins(place, bytes)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Appends batches at their place, the last seal at the end of `bytes`.
    ///
    /// 1. One write. A crash here leaves some part of it behind the last seal: an unsealed tail. If the enclave lives on, it
    ///    sends the same bytes again and they are written over it; if not, it asks for the tail to be set aside.
    /// 2. One fdatasync. From here on the batches may be acknowledged.
    pub(super) fn append(&mut self, bytes: &[u8], place: u64) -> Result<(), Unwritten> {
        self.digest_up_to(place).map_err(Unwritten::Failed)?;
        if let Err(error) = write_all(self.file.as_ref(), bytes, place) {
            return Err(self.undo(error));
        }
        self.file.sync().map_err(Unwritten::Failed)?;
        self.content.update(bytes);
        self.sealed_end = place + bytes.len() as u64;
        self.settled = self.sealed_end;
        self.length = self.sealed_end;
        Ok(())
    }

    /// Ends the segment with a footer: one write, one fdatasync. A crash here leaves a part of a footer; opening the store
    /// completes it.
    pub(super) fn close(&mut self, durable: Durable) -> Result<(), Unwritten> {
        let footer = self.footer(durable).map_err(Unwritten::Failed)?;
        if let Err(error) = write_all(self.file.as_ref(), &footer, self.settled) {
            return Err(self.undo(error));
        }
        self.file.sync().map_err(Unwritten::Failed)?;
        self.settled += footer.len() as u64;
        self.length = self.settled;
        self.closed = true;
        Ok(())
    }

    /// Completes a footer of which only the beginning is there, or takes it back where there is no room for all of it. Gives
    /// whether there was one.
    pub(super) fn complete_footer(&mut self, durable: Durable) -> io::Result<bool> {
        if self.closed || !self.has_tail() {
            return Ok(false);
        }
        let footer = self.footer(durable)?;
        if !self.rest_begins(self.settled, &footer)? {
            return Ok(false);
        }
        match self.close(durable) {
            Ok(()) | Err(Unwritten::Full) => Ok(true),
            Err(Unwritten::Failed(error)) => Err(error),
        }
    }

    /// Whether bytes follow that are not settled.
    pub(super) const fn has_tail(&self) -> bool {
        self.length > self.settled
    }

    /// The record of the footer that this segment would get.
    fn footer(&mut self, durable: Durable) -> io::Result<Vec<u8>> {
        self.digest_up_to(self.settled)?;
        let content = Digest::new(self.content.clone().finalize().into());
        let footer = Footer { first: self.name.first, size: durable.size, last: durable.last, content };
        let mut bytes = Vec::new();
        Record::new(RecordKind::Footer, footer.to_bytes()).write_to(&mut bytes);
        Ok(bytes)
    }

    /// Whether the file from `place` on is the beginning of `bytes`, or nothing.
    fn rest_begins(&self, place: u64, bytes: &[u8]) -> io::Result<bool> {
        let rest = usize::try_from(self.length - place).ok();
        let Some(expected) = rest.and_then(|length| bytes.get(..length)) else { return Ok(false) };
        let mut rest = vec![0; expected.len()];
        let count = read_full(self.file.as_ref(), &mut rest, place)?;
        Ok(count == rest.len() && rest == expected)
    }

    /// Takes the file up to `end` into the digest, and from then on everything up to there for sealed.
    fn digest_up_to(&mut self, end: u64) -> io::Result<()> {
        let mut chunk = vec![0; usize::try_from(end - self.sealed_end).unwrap_or(CHUNK).min(CHUNK)];
        while self.sealed_end < end {
            let wanted = usize::try_from(end - self.sealed_end).unwrap_or(CHUNK).min(CHUNK);
            let room = chunk.get_mut(..wanted).unwrap_or_default();
            if read_full(self.file.as_ref(), room, self.sealed_end)? < wanted {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.content.update(&room);
            self.sealed_end += wanted as u64;
        }
        Ok(())
    }

    /// How long ago it was started or taken up.
    pub(super) fn age(&self) -> std::time::Duration {
        self.since.elapsed()
    }

    /// Takes a write back that found no room. A tail that was there before is a part of what was to be written, and gone.
    fn undo(&mut self, error: io::Error) -> Unwritten {
        if !is_full(&error) {
            return Unwritten::Failed(error);
        }
        match self.file.truncate(self.settled) {
            Ok(()) => {
                self.length = self.settled;
                Unwritten::Full
            }
            Err(error) => Unwritten::Failed(error),
        }
    }
}

impl Unwritten {
    fn of(error: io::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::Failed(error) }
    }
}
