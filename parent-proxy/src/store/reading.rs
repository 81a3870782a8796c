//! What is read from the open log: segments, byte by byte as they are stored, and proofs.

use std::io;

use tracing::warn;
use transcode_confidential::{
    audit::{
        segment::SegmentName,
        tree::{Node, ProofError, consistency_proof, inclusion_proof},
    },
    protocol::host::{HostError, READ_LIMIT, SEGMENTS_LIMIT, SegmentInfo},
};

use super::{disk::read_full, log::OpenLog};

impl OpenLog {
    /// Segments after the given one.
    pub(super) fn segments(&self, after: Option<SegmentName>) -> Vec<SegmentInfo> {
        let later = self.segments.iter().filter(|(name, _)| after.is_none_or(|after| **name > after));
        later.take(SEGMENTS_LIMIT).map(|(&name, &length)| SegmentInfo { name, length }).collect()
    }

    /// Bytes of a segment.
    pub(super) fn read(&self, name: SegmentName, offset: u64, length: usize) -> Result<Vec<u8>, HostError> {
        let end = *self.segments.get(&name).ok_or(HostError::NotFound)?;
        let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(READ_LIMIT).min(left)];
        let read = match self.last.as_ref().filter(|last| last.name == name) {
            Some(last) => read_full(last.file.as_ref(), &mut bytes, offset),
            None => self.read_inner(name, &mut bytes, offset),
        };
        match read {
            Ok(count) => {
                bytes.truncate(count);
                Ok(bytes)
            }
            Err(error) => {
                warn!(segment = %name, offset, %error, "a segment cannot be read");
                Err(HostError::StorageFailed)
            }
        }
    }

    /// The segment that begins with the newest snapshot.
    pub(super) fn snapshot(&self) -> Option<SegmentName> {
        self.snapshots.last().copied()
    }

    /// An inclusion proof.
    pub(super) fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Node>, HostError> {
        self.proof(size, || inclusion_proof(&self.hashes, index, size))
    }

    /// A consistency proof.
    pub(super) fn consistency(&self, old: u64, new: u64) -> Result<Vec<Node>, HostError> {
        self.proof(new, || consistency_proof(&self.hashes, old, new))
    }

    /// Exactly `length` bytes of a segment.
    pub(super) fn read_range(&self, name: SegmentName, start: u64, length: usize) -> Result<Vec<u8>, HostError> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let more = self.read(name, start + bytes.len() as u64, length - bytes.len())?;
            if more.is_empty() {
                return Err(HostError::StorageFailed);
            }
            bytes.extend(more);
        }
        Ok(bytes)
    }

    fn read_inner(&self, name: SegmentName, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = match self.reading.take().filter(|(reading, _)| *reading == name) {
            Some((_, file)) => file,
            None => self.files.open_at(name, self.aging.place(name))?,
        };
        let count = read_full(file.as_ref(), bytes, offset)?;
        *self.reading.borrow_mut() = Some((name, file));
        Ok(count)
    }

    fn proof(&self, size: u64, make: impl FnOnce() -> Result<Vec<Node>, ProofError>) -> Result<Vec<Node>, HostError> {
        if size > self.head.durable.size {
            return Err(HostError::NotFound);
        }
        make().map_err(|_| HostError::NotFound)
    }
}
