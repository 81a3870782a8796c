//! A log in a directory that is being written: verified as it grows.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use transcode_confidential::{
    attestation::{ImagePolicy, TrustRoot},
    audit::{
        segment::{RecordBuffer, SegmentHeader, SegmentName},
        verify::{LogVerifier, SealedEvent},
    },
};

use super::stored::{Segments, not_intact};
use crate::cli::exit::Failure;

/// Bytes that are read at a time.
const CHUNK: usize = 256 * 1024;

/// Reads what is whole, and leaves what is not for later: the end of the last file may be a write that is under way.
pub(super) struct Growing {
    dir: PathBuf,
    verifier: Option<LogVerifier>,
    current: Option<Current>,
}

/// The segment that is being read.
struct Current {
    name: SegmentName,
    path: PathBuf,
    /// What the verifier was given ends here: at the end of a record, or of the header.
    position: u64,
}

impl Growing {
    pub(super) fn open(dir: &Path, root: TrustRoot, image: ImagePolicy) -> Self {
        Self { dir: dir.to_owned(), verifier: Some(LogVerifier::new(root, image)), current: None }
    }

    /// Gives the sealed events that were not given yet.
    ///
    /// # Errors
    /// Where the log is not intact.
    pub(super) fn read(&mut self, sink: &mut dyn FnMut(SealedEvent)) -> Result<(), Failure> {
        let segments = Segments::of(&self.dir)?;
        loop {
            let reading = self.current.as_ref().map(|current| current.name);
            let mut later = segments.in_order().skip_while(|(name, _)| reading.is_some_and(|reading| **name < reading));
            let (Some(verifier), Some(first)) = (&mut self.verifier, later.next()) else { return Ok(()) };
            let current = match &mut self.current {
                Some(current) if *first.0 == current.name => current,
                _ => {
                    verifier.segment(*first.0);
                    self.current.insert(Current { name: *first.0, path: first.1.to_owned(), position: 0 })
                }
            };
            let next = later.next();
            // A file that has a successor is as long as it will ever be: whatever it ends with is for the verifier to judge.
            current.read(next.is_some(), verifier, sink)?;
            if let Some((name, path)) = next {
                verifier.segment(*name);
                self.current = Some(Current { name: *name, path: path.to_owned(), position: 0 });
            }
            if verifier.has_failed() {
                let report = self.verifier.take().map(LogVerifier::finish);
                return report.map_or(Ok(()), |report| Err(not_intact(&report)));
            }
            if next.is_none() {
                return Ok(());
            }
        }
    }
}

impl Current {
    fn read(
        &mut self,
        to_the_end: bool,
        verifier: &mut LogVerifier,
        sink: &mut dyn FnMut(SealedEvent),
    ) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::file(&self.path, &error);
        let file = File::open(&self.path).map_err(failed)?;
        let mut chunk = vec![0; CHUNK];
        let mut held: Vec<u8> = Vec::new();
        loop {
            let count = file.read_at(&mut chunk, self.position + held.len() as u64).map_err(failed)?;
            held.extend_from_slice(chunk.get(..count).unwrap_or_default());
            let whole = if to_the_end { held.len() } else { whole(self.position, &held) };
            verifier.push(held.get(..whole).unwrap_or_default(), sink);
            held.drain(..whole);
            self.position += whole as u64;
            // What cannot be read yet may be a record of which more comes, up to the longest there is.
            if count == 0 || verifier.has_failed() || (whole == 0 && held.len() > 2 * CHUNK) {
                return Ok(());
            }
        }
    }
}

/// How many of the bytes at this place of a segment are its header and whole records.
fn whole(position: u64, bytes: &[u8]) -> usize {
    let header = if position == 0 { SegmentHeader::LEN } else { 0 };
    let mut records = RecordBuffer::at(header as u64);
    let Some(rest) = bytes.get(header..) else { return 0 };
    records.push(rest);
    while let Ok(Some(_)) = records.next_record() {}
    usize::try_from(records.offset()).unwrap_or(header)
}
