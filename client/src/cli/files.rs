//! Local files: read whole with a limit, written whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Write as _},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::Path,
};

use super::exit::Failure;

/// Largest of the small files that are read: certificates, documents, policies, evidence.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Who may read a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Its owner.
    Private,
    /// Whoever the umask allows.
    Public,
}

impl Access {
    const fn mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o666,
        }
    }

    pub(super) fn permissions(self) -> Permissions {
        Permissions::from_mode(self.mode())
    }
}

/// Reads a small file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > LIMIT => Err(Failure::file(path, &"larger than any such file")),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(Failure::file(path, &error)),
    }
}

/// Reads a small text.
pub(super) fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?).map_err(|_| Failure::file(path, &"not a text in UTF-8"))
}

/// Writes a file that must not exist yet.
pub(super) fn create(path: &Path, content: &[u8], access: Access) -> Result<(), Failure> {
    let create = || {
        let mut file = File::options().write(true).create_new(true).mode(access.mode()).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    create().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::file(path, &"exists already; it is not overwritten"),
        _ => Failure::file(path, &error),
    })
}

/// Replaces a file whole, or leaves it as it is.
pub(super) fn replace(path: &Path, content: &[u8], access: Access) -> Result<(), Failure> {
    let write = || {
        let mut temporary = temporary_beside(path, access)?;
        temporary.write_all(content)?;
        put_in_place(temporary, path)
    };
    write().map_err(|error| Failure::file(path, &error))
}

/// A file in the same directory, so that it can take the other's place at once. It is removed when it is dropped.
pub(super) fn temporary_beside(path: &Path, access: Access) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(".confidential-").permissions(access.permissions()).tempfile_in(directory(path))
}

/// Gives a temporary file its name, after its content is durable.
pub(super) fn put_in_place(temporary: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    File::open(directory(path))?.sync_all()
}

/// Standard input or output of this process, as a file that does not block.
pub(super) fn of_process(stream: &impl AsFd) -> io::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from_std(File::from(stream.as_fd().try_clone_to_owned()?)))
}

/// The same for those who block.
pub(super) fn of_process_blocking(stream: &impl AsFd) -> io::Result<File> {
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether others than the owner may read a file that holds a private key.
pub(super) fn is_readable_by_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o077 != 0)
}
