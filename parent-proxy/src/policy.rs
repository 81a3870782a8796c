//! Signed policies, handed to the enclave when it has an older one. The enclave verifies them; nothing here is believed.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::warn;
use transcode_confidential::{
    ids::Digest,
    protocol::policy::{DOCUMENT_LIMIT, SignedPolicy},
};

use crate::reloadable::Reloadable;

/// A document that was handed over and did not become the one in force is not offered again for so long: another one gets
/// its chance, and the enclave's record is not filled with the same refusal.
const PAUSE: Duration = Duration::from_secs(30);
/// Most files of a directory that are looked at.
const FILES: usize = 1024;

/// A policy document, or a directory of them.
#[derive(Debug)]
pub(crate) struct PolicySource {
    path: Reloadable<PathBuf>,
    restore: Reloadable<Option<PathBuf>>,
    offered: Mutex<HashMap<Digest, Instant>>,
}

impl PolicySource {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path: Reloadable::new(path), restore: Reloadable::new(None), offered: Mutex::default() }
    }

    pub(crate) fn reload(&self, path: PathBuf, restore: Option<PathBuf>) {
        self.path.replace(path);
        self.restore.replace(restore);
        self.forget_offers();
    }

    /// The restore document, where there is one.
    pub(crate) async fn restoration(&self) -> Option<Vec<u8>> {
        let path = Option::clone(&self.restore.current())?;
        let shown = path.display().to_string();
        match tokio::task::spawn_blocking(move || read(&path)).await.ok()? {
            Ok(document) => Some(document).filter(|document| document.len() <= DOCUMENT_LIMIT),
            Err(error) => {
                warn!(path = shown, %error, "the restore document cannot be read");
                None
            }
        }
    }

    /// A session that begins has been offered nothing yet.
    pub(crate) fn forget_offers(&self) {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The document that claims the highest version above `after`, among those that were not offered just now.
    pub(crate) async fn newer_than(&self, after: u64) -> Option<Vec<u8>> {
        let path = self.path.current();
        let found = tokio::task::spawn_blocking(move || documents(&path)).await.ok()?;
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        offered.retain(|_, since| since.elapsed() < PAUSE);
        let candidates = found.into_iter().filter(|(version, _)| *version > after);
        let fresh = candidates.filter(|(_, document)| !offered.contains_key(&Digest::of(document)));
        let (_, document) = fresh.max_by_key(|(version, _)| *version)?;
        offered.insert(Digest::of(&document), Instant::now());
        Some(document)
    }
}

/// Policy documents with the versions that they claim. What is none is left out with a warning.
fn documents(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let files = match files(path) {
        Ok(files) => files,
        Err(error) => {
            warn!(path = %path.display(), %error, "policies cannot be read");
            return Vec::new();
        }
    };
    let read = |file: PathBuf| match read(&file) {
        Ok(document) => match SignedPolicy::claimed_version(&document) {
            Ok(version) => Some((version, document)),
            Err(error) => {
                warn!(path = %file.display(), %error, "a file among the policies is none");
                None
            }
        },
        Err(error) => {
            warn!(path = %file.display(), %error, "a policy cannot be read");
            None
        }
    };
    files.into_iter().filter_map(read).collect()
}

fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)?.take(FILES) {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && std::fs::metadata(entry.path()).is_ok_and(|found| found.is_file()) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Reads at most one byte more than a document may have; the decoder refuses that.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut document = Vec::new();
    std::fs::File::open(path)?.take(DOCUMENT_LIMIT as u64 + 1).read_to_end(&mut document)?;
    Ok(document)
}

#[cfg(test)]
mod tests {
    use transcode_confidential::{
        protocol::policy::Policy, secret::KeyMaterial, signature::SigningKey, time::Timestamp,
    };

    use super::*;

    fn document(version: u64) -> Vec<u8> {
        let key = SigningKey::from_seed(&KeyMaterial::from_bytes([8; 32])).unwrap();
        let (grants, denied) = (Vec::new(), Vec::new());
        let policy = Policy { deployment: "studio".into(), version, issued_at: Timestamp(1), grants, denied };
        SignedPolicy::sign(policy, &key).document().to_vec()
    }

    #[tokio::test]
    async fn the_newest_policy_of_a_directory_is_handed_over_and_nothing_old() {
        let dir = tempfile::tempdir().unwrap();
        for version in [2, 10, 9] {
            std::fs::write(dir.path().join(format!("{version}.policy")), document(version)).unwrap();
        }
        std::fs::write(dir.path().join("README"), "no policy").unwrap();
        std::fs::write(dir.path().join(".11.policy.swp"), document(11)).unwrap();
        let source = PolicySource::new(dir.path().to_owned());
        assert_eq!(source.newer_than(10).await, None);
        assert_eq!(source.newer_than(3).await, Some(document(10)));
    }

    #[tokio::test]
    async fn a_policy_that_did_not_take_makes_room_for_another() {
        let dir = tempfile::tempdir().unwrap();
        for version in [4, 5] {
            std::fs::write(dir.path().join(version.to_string()), document(version)).unwrap();
        }
        let source = PolicySource::new(dir.path().to_owned());
        assert_eq!(source.newer_than(3).await, Some(document(5)));
        assert_eq!(source.newer_than(3).await, Some(document(4)));
        assert_eq!(source.newer_than(3).await, None);
        source.reload(dir.path().join("5"), None);
        assert_eq!(source.newer_than(3).await, Some(document(5)));
    }

    #[tokio::test]
    async fn a_missing_or_overlong_file_is_no_policy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy");
        let source = PolicySource::new(path.clone());
        assert_eq!(source.newer_than(0).await, None);
        std::fs::write(&path, vec![0xd2; DOCUMENT_LIMIT * 2]).unwrap();
        assert_eq!(source.newer_than(0).await, None);
        std::fs::write(&path, document(1)).unwrap();
        assert_eq!(source.newer_than(0).await, Some(document(1)));
    }
}
