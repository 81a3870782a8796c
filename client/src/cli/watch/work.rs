use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tokio::io::AsyncWriteExt as _;

use super::{
    super::files::{self, Access},
    folder::{Segment, Version},
    is_passing, message_path,
};
use crate::{Client, ClientError, ContentDone, ContentError, EncryptRequest};

/// Encrypts one file after the other.
pub(super) struct Work {
    pub(super) client: Client,
    /// Without a content id of its own: that is the file's.
    pub(super) request: EncryptRequest,
    pub(super) output: PathBuf,
    pub(super) delete: bool,
}

/// A file whose message is in place.
pub(super) struct Finished {
    pub(super) file: PathBuf,
    pub(super) message: PathBuf,
    pub(super) done: ContentDone,
}

/// Why a file has no message.
pub(super) enum Problem {
    /// It was not complete after all.
    Changed(PathBuf),
    /// The enclave cannot do it now.
    Later(ClientError),
    /// The enclave will not do it.
    Enclave(ClientError),
    /// A file cannot be read or written.
    File(PathBuf, io::Error),
}

impl Work {
    /// Encrypts a file into a temporary one, which takes the place of its message when all of it is there and durable. A crash
    /// at any moment leaves no message, or a whole one; with it, at most a file that should have been removed.
    pub(super) async fn encrypt(&self, segment: &Segment) -> Result<Option<Finished>, Problem> {
        let message = message_path(&self.output, &segment.name);
        let of_file = |error| Problem::File(segment.path.clone(), error);
        let of_message = |error| Problem::File(message.clone(), error);
        if segment.encrypted {
            self.remove(segment).map_err(of_file)?;
            return Ok(None);
        }
        let input = match tokio::fs::File::open(&segment.path).await {
            Ok(input) => input,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(of_file(error)),
        };
        let temporary = files::temporary_beside(&message, Access::Public).map_err(of_message)?;
        let mut writer = tokio::fs::File::from_std(temporary.as_file().try_clone().map_err(of_message)?);
        let request = EncryptRequest { content_id: Some(self.content_id(segment)), ..self.request.clone() };
        let done = self.client.encrypt(&request, input, &mut writer).await.map_err(|error| match error {
            ClientError::Content(ContentError::Input(error)) => of_file(error),
            ClientError::Content(ContentError::Output(error)) => of_message(error),
            error if is_passing(&error) => Problem::Later(error),
            error => Problem::Enclave(error),
        })?;
        writer.flush().await.map_err(of_message)?;
        drop(writer);
        // What is in the message is the whole file only if the file is still what it was before.
        let now = fs::metadata(&segment.path).and_then(|metadata| Version::of(&metadata));
        if now.ok() != Some(segment.version) || done.bytes_in != segment.version.length {
            return Err(Problem::Changed(segment.path.clone()));
        }
        let modified = segment.version.modified;
        let place = message.clone();
        let placed = tokio::task::spawn_blocking(move || {
            temporary.as_file().set_modified(modified)?;
            files::put_in_place(temporary, &place)
        });
        placed.await.map_err(io::Error::other).and_then(|placed| placed).map_err(of_message)?;
        self.remove(segment).map_err(of_file)?;
        Ok(Some(Finished { file: segment.path.clone(), message, done }))
    }

    fn content_id(&self, segment: &Segment) -> String {
        let name = segment.name.to_string_lossy();
        let plain: String = name.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
        match &self.request.content_id {
            Some(prefix) => format!("{prefix}/{plain}"),
            None => plain,
        }
    }

    fn remove(&self, segment: &Segment) -> io::Result<()> {
        if !self.delete {
            return Ok(());
        }
        match fs::remove_file(&segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync(&segment.path),
        }
    }
}

fn sync(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()
}
