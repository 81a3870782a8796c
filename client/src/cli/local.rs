//! Encryption and decryption on this machine's own cores: one stream, or many files with their data keys asked for together.

mod many;

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use indicatif::ProgressBar;

use super::{args::Content, content::Request, destination::Destination, exit::Failure, files, progress};
use crate::{Client, ClientError, ContentDone, ContentError, local::LocalOptions};

pub(super) use many::many;

/// One stream.
pub(super) async fn one(
    request: &Request,
    content: &Content,
    client: &Client,
    input: Option<&Path>,
    destination: &Destination,
) -> Result<ContentDone, Failure> {
    let (input, length) = open(input)?;
    let bar = progress::bar(length);
    let (options, _stop) = options(content, request, &bar);
    let output = destination.blocking_writer().await.map_err(|error| ClientError::from(ContentError::Output(error)))?;
    let done = match request {
        Request::Encrypt(request, _) => client.encrypt_local(request, &options, input, output).await,
        Request::Decrypt(request) | Request::Rewrap(request) => {
            client.decrypt_local(request, &options, input, output).await
        }
    };
    bar.finish_and_clear();
    Ok(done.map(|(done, _)| done)?)
}

/// The file, or standard input, and its length where it has one.
fn open(path: Option<&Path>) -> Result<(File, Option<u64>), Failure> {
    let Some(path) = path.filter(|path| *path != Path::new("-")) else {
        let stdin = files::of_process_blocking(&std::io::stdin());
        return stdin.map(|stdin| (stdin, None)).map_err(|error| Failure::file(Path::new("-"), &error));
    };
    let open = || {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        Ok((file, metadata.is_file().then_some(metadata.len())))
    };
    open().map_err(|error: std::io::Error| Failure::file(path, &error))
}

/// Ends the work of threads that nobody waits for any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn options(content: &Content, request: &Request, bar: &ProgressBar) -> (LocalOptions, StopOnDrop) {
    let mut options = LocalOptions::default();
    if let Some(threads) = content.local.threads {
        options.threads = threads;
    }
    if let Request::Encrypt(_, Some(frame_length)) = request {
        options.frame_length = *frame_length;
    }
    let bar = bar.clone();
    options.progress = Arc::new(move |bytes| bar.inc(bytes));
    let stop = StopOnDrop(Arc::clone(&options.stop));
    (options, stop)
}
