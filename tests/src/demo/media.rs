//! The media file that the demo protects, of any size: nothing here holds more of it than a piece.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use transcode_confidential::ids::Digest;

use super::sample;

/// A part from the middle by which the content would be recognised.
const PROBE: usize = 64;
/// Length of the clip, at most.
const CLIP: u64 = 64 * 1024;
const PIECE: usize = 256 * 1024;

pub(super) struct Media {
    path: String,
    clip: String,
    /// In bytes.
    pub(super) length: u64,
    /// SHA-256.
    pub(super) digest: Digest,
    probe: Vec<u8>,
}

impl Media {
    /// The given file, or a sample that is made in `dir`.
    pub(super) fn prepare(file: Option<PathBuf>, dir: &Path) -> anyhow::Result<Self> {
        let path = match file {
            Some(file) => file.canonicalize().with_context(|| format!("reading {}", file.display()))?,
            None => {
                let path = dir.join("sample.wav");
                std::fs::write(&path, sample::wav())?;
                path
            }
        };
        let mut content = File::open(&path).with_context(|| format!("reading {}", path.display()))?;
        let length = content.metadata()?.len();
        let (mut clip, mut probe) = (Vec::new(), Vec::new());
        content.by_ref().take(CLIP).read_to_end(&mut clip)?;
        content.seek(SeekFrom::Start(length / 2))?;
        content.take(PROBE as u64).read_to_end(&mut probe)?;
        std::fs::write(dir.join("clip"), clip)?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let digest = sha256(&path)?;
        Ok(Self { path: text(path), clip: text(dir.join("clip")), length, digest, probe })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// A file with the beginning of it.
    pub(super) fn clip(&self) -> &str {
        &self.clip
    }

    /// Whether the probe can be found in a file. A probe that is short or monotonous proves nothing and is not looked for.
    pub(super) fn shows_through(&self, path: &str) -> anyhow::Result<bool> {
        let monotonous = self.probe.iter().all(|byte| Some(byte) == self.probe.first());
        if self.probe.len() < 16 || monotonous {
            return Ok(false);
        }
        let (mut file, mut window) = (File::open(path)?, Vec::new());
        loop {
            let overlap = window.len().saturating_sub(self.probe.len());
            window.drain(..overlap);
            if file.by_ref().take(PIECE as u64).read_to_end(&mut window)? == 0 {
                return Ok(false);
            }
            if window.windows(self.probe.len()).any(|found| found == self.probe) {
                return Ok(true);
            }
        }
    }
}

/// SHA-256 of a file.
pub(super) fn sha256(path: impl AsRef<Path>) -> anyhow::Result<Digest> {
    let (mut file, mut hash, mut piece) = (File::open(path)?, Sha256::new(), vec![0; PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Digest::new(hash.finalize().into())),
            length => hash.update(&piece[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_that_shows_through_is_seen_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let media = Media::prepare(None, dir.path()).unwrap();
        assert!(media.shows_through(media.path()).unwrap());
        let other = dir.path().join("other");
        for before in [0, PIECE - 10, 3 * PIECE] {
            std::fs::write(&other, [&vec![9; before], &media.probe[..], &[8; 100]].concat()).unwrap();
            assert!(media.shows_through(other.to_str().unwrap()).unwrap(), "{before}");
        }
        std::fs::write(&other, vec![9; 2 * PIECE]).unwrap();
        assert!(!media.shows_through(other.to_str().unwrap()).unwrap());
    }
}
