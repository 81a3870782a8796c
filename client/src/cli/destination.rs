//! Where content goes: standard output, or a file that takes its place only when all of it is there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::files::{self, Access};

pub(super) enum Destination {
    /// Standard output, or what is no ordinary file and cannot be replaced by one: a pipe, a device.
    Direct(tokio::fs::File),
    File {
        temporary: tempfile::NamedTempFile,
        writer: tokio::fs::File,
        path: PathBuf,
    },
}

impl Destination {
    pub(super) fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::Direct(files::of_process(&io::stdout())?));
        };
        // A link stays a link: what it points to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(metadata) if !metadata.is_file() => {
                Ok(Self::Direct(tokio::fs::File::from_std(fs::File::options().write(true).open(path)?)))
            }
            existing => {
                let temporary = files::temporary_beside(&path, Access::Public)?;
                // Who could not read the old content gets not to read the new one.
                if let Ok(metadata) = existing {
                    temporary.as_file().set_permissions(metadata.permissions())?;
                }
                let writer = tokio::fs::File::from_std(temporary.as_file().try_clone()?);
                Ok(Self::File { temporary, writer, path })
            }
        }
    }

    pub(super) fn writer(&mut self) -> &mut (dyn AsyncWrite + Unpin + Send) {
        match self {
            Self::Direct(file) | Self::File { writer: file, .. } => file,
        }
    }

    /// The same for those who block; not to be mixed with [`Destination::writer`].
    pub(super) async fn blocking_writer(&self) -> io::Result<fs::File> {
        match self {
            Self::Direct(file) | Self::File { writer: file, .. } => Ok(file.try_clone().await?.into_std().await),
        }
    }

    /// Everything was written and verified: puts the file in place. Without this, dropping removes what was written.
    pub(super) async fn commit(self) -> io::Result<()> {
        match self {
            Self::Direct(mut file) => file.flush().await,
            Self::File { temporary, mut writer, path } => {
                writer.flush().await?;
                drop(writer);
                tokio::task::spawn_blocking(move || files::put_in_place(temporary, &path))
                    .await
                    .map_err(io::Error::other)?
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_appears_when_it_is_committed_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Access::Private.permissions()).unwrap();
        let mut destination = Destination::open(Some(&path)).unwrap();
        destination.writer().write_all(b"new").await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        destination.commit().await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(!files::is_readable_by_others(&path), "as the old one was");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_is_given_up_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut destination = Destination::open(Some(&dir.path().join("out"))).unwrap();
        destination.writer().write_all(b"half").await.unwrap();
        drop(destination);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_link_stays_a_link_and_a_device_stays_a_device() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let mut destination = Destination::open(Some(&link)).unwrap();
        destination.writer().write_all(b"new").await.unwrap();
        destination.commit().await.unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert!(matches!(Destination::open(Some(Path::new("/dev/null"))), Ok(Destination::Direct(_))));
        assert!(Destination::open(Some(dir.path())).is_err());
    }
}
