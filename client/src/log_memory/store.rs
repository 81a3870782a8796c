use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use transcode_confidential::{audit::Seal, ids::LogId};

use super::{LogError, Remembered, VerifiedCheckpoint};

/// The memory in a directory that may be shared by several processes: `logs/<log id>.json`, `servers.json`, `lock`.
///
/// Every file is replaced whole, by one that was synced first; the lock is held while a file is read and replaced.
#[derive(Debug, Clone)]
pub struct LogMemory {
    dir: PathBuf,
}

impl LogMemory {
    /// The memory in `dir`, which is made when something is first remembered.
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is remembered of a log.
    ///
    /// # Errors
    /// [`LogError::Memory`].
    pub fn recall(&self, log_id: LogId) -> Result<Option<Remembered>, LogError> {
        let path = self.log_path(log_id);
        match read::<Remembered>(&path)? {
            Some(other) if other.log_id() != log_id => {
                Err(at(&path)(io::Error::new(io::ErrorKind::InvalidData, "it is about another log")))
            }
            remembered => Ok(remembered),
        }
    }

    /// The log that a server had when it was last accepted.
    ///
    /// # Errors
    /// [`LogError::Memory`].
    pub fn log_of(&self, server: &str) -> Result<Option<LogId>, LogError> {
        Ok(self.servers()?.get(server).copied())
    }

    /// Remembers a checkpoint of `server`, if what is remembered is still what it was held against, or was brought forward
    /// by the same enclave since. `false` where it is not.
    ///
    /// # Errors
    /// [`LogError::Memory`], [`LogError::Forked`].
    pub fn advance(
        &self,
        server: &str,
        held_against: Option<&Remembered>,
        checkpoint: VerifiedCheckpoint,
    ) -> Result<bool, LogError> {
        let log_id = checkpoint.log_id();
        let _lock = self.lock()?;
        let current = self.recall(log_id)?;
        let next = match (&current, held_against) {
            (None, None) => checkpoint.into(),
            (Some(current), Some(known)) if current == known => current.advanced_to(checkpoint),
            (Some(current), _) => match current.merged_with(checkpoint)? {
                Some(merged) => merged,
                None => return Ok(false),
            },
            (None, Some(_)) => return Ok(false),
        };
        if current.as_ref() != Some(&next) {
            self.write(&self.log_path(log_id), &next)?;
        }
        // A crash here leaves a log that is remembered and a server that is not yet: its next contact repeats this.
        let mut servers = self.servers()?;
        if servers.insert(server.to_owned(), log_id) != Some(log_id) {
            self.write(&self.dir.join("servers.json"), &servers)?;
        }
        Ok(true)
    }

    /// Remembers a checkpoint of a log that was taken up from an older copy, in the place of `known`, which goes to
    /// `lost/<log id>-<events>-<epoch>.json`: it is the evidence of what was lost. `false` where something else is remembered by
    /// now.
    ///
    /// # Errors
    /// [`LogError::Memory`].
    pub fn accept_restored(&self, known: &Remembered, checkpoint: VerifiedCheckpoint) -> Result<bool, LogError> {
        let log_id = checkpoint.log_id();
        let _lock = self.lock()?;
        if self.recall(log_id)?.as_ref() != Some(known) {
            return Ok(false);
        }
        let lost = self.dir.join("lost");
        fs::create_dir_all(&lost).map_err(at(&lost))?;
        let newest = known.newest();
        // 1. The evidence is durable under its new name: a crash here leaves it twice.
        self.write(&lost.join(format!("{log_id}-{}-{}.json", newest.size, newest.epoch)), known)?;
        // 2. Only then the new history takes its place.
        self.write(&self.log_path(log_id), &Remembered::from(checkpoint))?;
        Ok(true)
    }

    /// Remembers the seal of a verified receipt.
    ///
    /// # Errors
    /// [`LogError::Memory`], [`LogError::Forked`].
    pub fn advance_by(&self, seal: &Seal) -> Result<(), LogError> {
        let _lock = self.lock()?;
        if let Some(current) = self.recall(seal.log_id)?
            && let Some(next) = current.advanced_by(seal)?
        {
            self.write(&self.log_path(seal.log_id), &next)?;
        }
        Ok(())
    }

    fn servers(&self) -> Result<BTreeMap<String, LogId>, LogError> {
        Ok(read(&self.dir.join("servers.json"))?.unwrap_or_default())
    }

    fn log_path(&self, log_id: LogId) -> PathBuf {
        self.dir.join("logs").join(format!("{log_id}.json"))
    }

    fn lock(&self) -> Result<File, LogError> {
        let logs = self.dir.join("logs");
        fs::create_dir_all(&logs).map_err(at(&logs))?;
        let path = self.dir.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        file.lock().map_err(at(&path))?;
        Ok(file)
    }

    /// Under the lock, so one name for the temporary file is enough; what a crash left of it is overwritten.
    fn write<T: serde::Serialize>(&self, path: &Path, value: &T) -> Result<(), LogError> {
        let replace = || {
            let temporary = path.with_extension("tmp");
            let mut text = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
            text.push(b'\n');
            let mut file = File::create(&temporary)?;
            file.write_all(&text)?;
            // 1. The content is durable under another name: a crash here changes nothing.
            file.sync_all()?;
            // 2. The name changes hands at once: a crash here leaves the old or the new content.
            fs::rename(&temporary, path)?;
            // 3. From here on it is the new one.
            File::open(path.parent().unwrap_or(&self.dir))?.sync_all()
        };
        replace().map_err(at(path))
    }
}

/// Reads a file; none is nothing remembered, but one that cannot be read is an error: it might have held the proof.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, LogError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| at(path)(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Memory { path: path.clone(), source }
}
