//! `confidential watch`: encrypts the files of a directory as a packager finishes them.

mod folder;
mod work;

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde_json::json;
use tokio::task::JoinSet;
use transcode_confidential::message::EncryptionContext;

use super::{
    args::{Global, WatchArgs},
    connection,
    content::interrupted,
    environment::Environment,
    exit::{Done, Failure},
    gateway::{say, start_logging},
};
use crate::{ClientError, EncryptRequest};
use folder::{Completeness, Folder};
use work::{Finished, Problem, Work};

/// How often the directory is looked at.
const POLL: Duration = Duration::from_millis(250);
/// Pause after an enclave that was not available.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn run(request: WatchArgs, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    start_logging("info")?;
    let configured = connection::client(global, environment)?;
    let context = EncryptionContext::from_pairs(request.context.iter().cloned())
        .map_err(|error| Failure::usage(format!("--context: {error}")))?;
    let output = request.output.clone().unwrap_or_else(|| request.dir.clone());
    let completeness = if request.once {
        Completeness::Everything
    } else {
        Completeness::NamedOrSettled(Duration::from_secs(request.settle))
    };
    let work = Work {
        client: configured.client,
        request: EncryptRequest { key: request.key.clone(), context, content_id: request.content_id.clone() },
        output: output.clone(),
        delete: request.delete,
    };
    let folder = Folder::new(request.dir.clone(), output, completeness);
    let mut watch = Watch { work: Arc::new(work), folder, request, json: global.json, tally: Tally::default() };
    connection::block_on(async {
        tokio::select! {
            biased;
            // What is half done leaves nothing behind, and is done the next time.
            _ = interrupted() => {}
            ended = watch.follow() => ended?,
        }
        Ok(watch.done())
    })
}

struct Watch {
    work: Arc<Work>,
    folder: Folder,
    request: WatchArgs,
    json: bool,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    files: u64,
    bytes: u64,
}

impl Watch {
    async fn follow(&mut self) -> Result<(), Failure> {
        let mut running = JoinSet::new();
        loop {
            let seen = self.folder.look().map_err(|error| Failure::file(&self.request.dir, &error))?;
            let mut pause = POLL;
            // What is encrypted and stays needs nothing more.
            let (delete, ready) = (self.request.delete, seen.ready.into_iter());
            for file in ready.filter(|file| !file.encrypted || delete) {
                while running.len() >= self.request.jobs.into() {
                    pause = pause.max(self.take(running.join_next().await)?);
                }
                let work = Arc::clone(&self.work);
                running.spawn(async move { work.encrypt(&file).await });
            }
            while let Some(ended) = running.join_next().await {
                pause = pause.max(self.take(Some(ended))?);
            }
            let idle = pause == POLL
                && self.folder.look().map_err(|error| Failure::file(&self.request.dir, &error))?.is_done();
            if (self.request.once && idle) || (self.request.until_end && idle && seen.ended) {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Says what became of a file. What may work later is found again at the next look.
    fn take(
        &mut self,
        ended: Option<Result<Result<Option<Finished>, Problem>, tokio::task::JoinError>>,
    ) -> Result<Duration, Failure> {
        match ended {
            Some(Ok(Ok(None))) => Ok(POLL),
            Some(Ok(Ok(Some(finished)))) => {
                self.tally.files += 1;
                self.tally.bytes += finished.done.bytes_in;
                self.say(&finished);
                Ok(POLL)
            }
            Some(Ok(Err(Problem::Changed(path)))) => {
                tracing::info!(file = %path.display(), "it changed while it was read; waiting until it is complete");
                Ok(PAUSE)
            }
            Some(Ok(Err(Problem::Later(error)))) if self.request.once => Err(error.into()),
            Some(Ok(Err(Problem::Later(error)))) => {
                tracing::warn!(%error, "trying again");
                Ok(PAUSE)
            }
            Some(Ok(Err(Problem::Enclave(error)))) => Err(error.into()),
            Some(Ok(Err(Problem::File(path, error)))) => Err(Failure::file(&path, &error)),
            Some(Err(_)) | None => Ok(POLL),
        }
    }

    fn say(&self, finished: &Finished) {
        let Finished { file, message, done } = finished;
        let receipt = transcode_confidential::protocol::api::ReceiptText(done.receipt.clone());
        if self.json {
            let object = json!({
                "file": file, "message": message, "key": done.key, "version": done.version,
                "bytes_in": done.bytes_in, "bytes_out": done.bytes_out,
                "log_id": done.receipt.log_id(), "sequence": done.receipt.sequence, "receipt": receipt,
            });
            say(&format!("{object}\n"));
        } else {
            let name = message.display().to_string();
            let name = super::terminal::line(&name);
            say(&format!(
                "{name}: {} bytes, version {}, event {}\n",
                done.bytes_in, done.version, done.receipt.sequence
            ));
        }
    }

    fn done(&self) -> Done {
        let Tally { files, bytes } = self.tally;
        Done::ok(json!({ "files": files, "bytes": bytes }), format!("{files} files, {bytes} bytes"))
    }
}

/// Where the message of a file goes.
fn message_path(output: &std::path::Path, name: &std::ffi::OsStr) -> PathBuf {
    let mut file = name.to_owned();
    file.push(".tce");
    output.join(file)
}

/// Whether the same may work a little later.
fn is_passing(error: &ClientError) -> bool {
    match error.answer() {
        Some(answer) => answer.retryable,
        None => error.kind() == crate::ErrorKind::Unavailable,
    }
}
