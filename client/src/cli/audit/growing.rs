//! A log in a directory that is being written: verified as it grows.

use std::{
    io::{self, Read as _},
    path::PathBuf,
};

use transcode_confidential::{
    attestation::{ImagePolicy, TrustRoot},
    audit::{
        segment::{RecordBuffer, SegmentHeader, SegmentName},
        verify::{LogVerifier, SealedEvent},
    },
};

use super::stored::{self, Segments, not_intact};
use crate::cli::exit::Failure;

/// Bytes that are read at a time.
const CHUNK: usize = 256 * 1024;

/// Reads what is whole, and leaves what is not for later: the end of the last file may be a write that is under way.
pub(super) struct Growing {
    dirs: Vec<PathBuf>,
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
    pub(super) fn open(dirs: Vec<PathBuf>, root: TrustRoot, image: ImagePolicy) -> Self {
        Self { dirs, verifier: Some(LogVerifier::new(root, image)), current: None }
    }

    /// Gives the sealed events that were not given yet.
    ///
    /// # Errors
    /// Where the log is not intact.
    pub(super) fn read(&mut self, sink: &mut dyn FnMut(SealedEvent)) -> Result<(), Failure> {
        let segments = Segments::of(&self.dirs)?;
        loop {
            let reading = self.current.as_ref().map(|current| current.name);
            let mut later = segments.in_order().skip_while(|(name, _)| reading.is_some_and(|reading| **name < reading));
            let (Some(verifier), Some(first)) = (&mut self.verifier, later.next()) else { return Ok(()) };
            let current = match &mut self.current {
                Some(current) if *first.0 == current.name => {
                    // It may have been packed or moved meanwhile.
                    first.1.clone_into(&mut current.path);
                    current
                }
                _ => {
                    verifier.segment(*first.0);
                    self.current.insert(Current { name: *first.0, path: first.1.to_owned(), position: 0 })
                }
            };
            let next = later.next();
            // A file that has a successor is as long as it will ever be: whatever it ends with is for the verifier to judge.
            if !current.read(next.is_some(), verifier, sink)? {
                return Ok(());
            }
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
    /// Reads on; false where the file is gone: it was packed or moved since it was seen, and is looked for again.
    fn read(
        &mut self,
        to_the_end: bool,
        verifier: &mut LogVerifier,
        sink: &mut dyn FnMut(SealedEvent),
    ) -> Result<bool, Failure> {
        let failed = |error: io::Error| Failure::file(&self.path, &error);
        let mut file = match stored::open(&self.path, self.position) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) if packed::is_damage(&error) => {
                verifier.unreadable(error.to_string());
                return Ok(true);
            }
            file => file.map_err(failed)?,
        };
        let mut chunk = vec![0; CHUNK];
        let mut held: Vec<u8> = Vec::new();
        loop {
            let count = match file.read(&mut chunk) {
                Err(error) if packed::is_damage(&error) => {
                    verifier.unreadable(error.to_string());
                    return Ok(true);
                }
                count => count.map_err(failed)?,
            };
            held.extend_from_slice(chunk.get(..count).unwrap_or_default());
            let whole = if to_the_end { held.len() } else { whole(self.position, &held) };
            verifier.push(held.get(..whole).unwrap_or_default(), sink);
            held.drain(..whole);
            self.position += whole as u64;
            // What cannot be read yet may be a record of which more comes, up to the longest there is.
            if count == 0 || verifier.has_failed() || (whole == 0 && held.len() > 2 * CHUNK) {
                return Ok(true);
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
