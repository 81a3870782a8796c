//! The last segment, the only one that is ever written.

use std::{io, time::Instant};

use sha2::{Digest as _, Sha256};
use transcode_confidential::{
    audit::segment::{Footer, Record, RecordKind, SegmentHeader, SegmentName},
    ids::{Digest, Sequence},
    protocol::host::Durable,
};

use super::{
    disk::{Access, DiskFile, is_full, read_full, write_all},
    files::Files,
};

const CHUNK: usize = 256 * 1024;

/// The last segment.
#[derive(Debug)]
pub(super) struct LastSegment {
    pub(super) name: SegmentName,
    pub(super) file: Box<dyn DiskFile>,
    /// Where the last seal ends. What follows, up to `length`, is a footer or an unsealed tail.
    pub(super) sealed_end: u64,
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
    pub(super) fn take_up(
        name: SegmentName,
        file: Box<dyn DiskFile>,
        sealed_end: u64,
        length: u64,
        closed: bool,
    ) -> io::Result<Self> {
        let mut content = Sha256::new();
        let mut chunk = vec![0; usize::try_from(sealed_end).unwrap_or(CHUNK).min(CHUNK)];
        let mut position = 0;
        while position < sealed_end {
            let wanted = usize::try_from(sealed_end - position).unwrap_or(CHUNK).min(CHUNK);
            let room = chunk.get_mut(..wanted).unwrap_or_default();
            if read_full(file.as_ref(), room, position)? < wanted {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            content.update(&room);
            position += wanted as u64;
        }
        Ok(Self { name, file, sealed_end, length, closed, content, since: Instant::now() })
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
        Ok(Self { name, file, sealed_end: end, length: end, closed: false, content, since: Instant::now() })
    }

    /// Appends batches, the last seal at the end of `bytes`.
    ///
    /// 1. One write. A crash here leaves some part of it behind the last seal: an unsealed tail. If the enclave lives on, it
    ///    sends the same bytes again and they are written over it; if not, it asks for the tail to be set aside.
    /// 2. One fdatasync. From here on the batches may be acknowledged.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), Unwritten> {
        if let Err(error) = write_all(self.file.as_ref(), bytes, self.sealed_end) {
            return Err(self.undo(error));
        }
        self.file.sync().map_err(Unwritten::Failed)?;
        self.content.update(bytes);
        self.sealed_end += bytes.len() as u64;
        self.length = self.length.max(self.sealed_end);
        Ok(())
    }

    /// Ends the segment with a footer: one write, one fdatasync. A crash here leaves a part of a footer; opening the store
    /// completes it.
    pub(super) fn close(&mut self, first: Sequence, durable: Durable) -> Result<(), Unwritten> {
        let footer = self.footer(first, durable);
        if let Err(error) = write_all(self.file.as_ref(), &footer, self.sealed_end) {
            return Err(self.undo(error));
        }
        self.file.sync().map_err(Unwritten::Failed)?;
        self.length = self.sealed_end + footer.len() as u64;
        self.closed = true;
        Ok(())
    }

    /// Whether the unsealed tail is the start of `bytes`: then it is they, half written.
    pub(super) fn tail_starts(&self, bytes: &[u8]) -> io::Result<bool> {
        let Some(expected) = usize::try_from(self.length - self.sealed_end).ok().and_then(|length| bytes.get(..length))
        else {
            return Ok(false);
        };
        let mut tail = vec![0; expected.len()];
        let count = read_full(self.file.as_ref(), &mut tail, self.sealed_end)?;
        Ok(count == tail.len() && tail == expected)
    }

    /// The record of the footer that this segment would get.
    pub(super) fn footer(&self, first: Sequence, durable: Durable) -> Vec<u8> {
        let content = Digest::new(self.content.clone().finalize().into());
        let footer = Footer { first, size: durable.size, last: durable.last, content };
        let mut bytes = Vec::new();
        Record::new(RecordKind::Footer, footer.to_bytes()).write_to(&mut bytes);
        bytes
    }

    /// Whether bytes follow the last seal that are no footer.
    pub(super) const fn has_tail(&self) -> bool {
        !self.closed && self.length > self.sealed_end
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
        match self.file.truncate(self.sealed_end) {
            Ok(()) => {
                self.length = self.sealed_end;
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
