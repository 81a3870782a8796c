use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use transcode_confidential::{
    audit::Receipt,
    entropy::Entropy,
    message::{DataKey, EncryptionContext, IssuedDataKey, WrappedDataKey},
    protocol::api::{DATA_KEY_BATCH, ErrorCode, IssueDataKeys, ReceiptText},
};

use super::{open, options};
use crate::{
    Client, ClientError, ContentError, DecryptRequest, EncryptRequest, Released,
    cli::{
        args::{Content, Global},
        connection,
        content::{Request, interrupted},
        destination::Destination,
        environment::Environment,
        exit::{Done, Exit, Failure},
        progress,
    },
    local::{self, LocalDone, LocalOptions, SealedInput, blocking, wanted_keys},
};

/// The pair of the context that names the file, so that one cannot be taken for another.
const SEGMENT: &str = "segment";
/// What the names of messages end in.
const SUFFIX: &str = "tce";
/// How long to wait for the next version where one is at its limit.
const PATIENCE: Duration = Duration::from_secs(60);

/// One file, and where it goes.
struct Job {
    input: PathBuf,
    output: PathBuf,
    /// The name of what is not encrypted.
    name: String,
}

/// What is done with a file, now that its data key is there.
enum Work {
    Encrypt(IssuedDataKey),
    Decrypt(SealedInput<File>, DataKey),
}

/// Many files; those that fail do not keep the others.
pub(in crate::cli) fn many(
    request: &Request,
    content: &Content,
    global: &Global,
    environment: &Environment,
) -> Result<Done, Failure> {
    let jobs = jobs(request, content)?;
    let configured = connection::client(global, environment)?;
    connection::block_on(async {
        tokio::select! {
            biased;
            number = interrupted() => Err(Failure::signal(number)),
            result = async {
                let view = configured.client.log().await?;
                let mut done = Many::new(request, content, &configured.client, &jobs).run(jobs).await;
                done.notes.extend(configured.notes(&view));
                Ok(done)
            } => result,
        }
    })
}

/// Names the outputs; refuses names that are not clear before anything is done.
fn jobs(request: &Request, content: &Content) -> Result<Vec<Job>, Failure> {
    let dir = content.local.out_dir.clone().unwrap_or_default();
    if !dir.is_dir() {
        return Err(Failure::file(&dir, &"is no directory"));
    }
    if content.input.is_empty() {
        return Err(Failure::usage("name the files to read"));
    }
    let mut taken = BTreeSet::new();
    let jobs = content.input.iter().map(|input| {
        let file_name = input.file_name().and_then(OsStr::to_str);
        let file_name = file_name.ok_or_else(|| Failure::file(input, &"has no name that is text"))?;
        let (name, output) = match request {
            Request::Encrypt(..) => (file_name, format!("{file_name}.{SUFFIX}")),
            Request::Decrypt(_) | Request::Rewrap(_) => {
                let name = file_name.strip_suffix(&format!(".{SUFFIX}")).filter(|name| !name.is_empty());
                let name = name.ok_or_else(|| Failure::usage(format!("{file_name} does not end in .{SUFFIX}")))?;
                (name, name.to_owned())
            }
        };
        if !taken.insert(output.clone()) {
            return Err(Failure::usage(format!("two files would become {output}")));
        }
        Ok(Job { input: input.clone(), output: dir.join(output), name: name.to_owned() })
    });
    jobs.collect()
}

type Finished = (Job, Result<(Receipt, LocalDone), Failure>);

struct Many<'a> {
    request: &'a Request,
    client: &'a Client,
    options: LocalOptions,
    at_once: usize,
    bar: indicatif::ProgressBar,
    _stop: super::StopOnDrop,
    finished: Vec<Finished>,
}

impl<'a> Many<'a> {
    fn new(request: &'a Request, content: &Content, client: &'a Client, jobs: &[Job]) -> Self {
        let length = |job: &Job| std::fs::metadata(&job.input).map_or(0, |metadata| metadata.len());
        let bar = progress::bar(Some(jobs.iter().map(length).sum()));
        let (mut options, stop) = options(content, request, &bar);
        // A file each to a core; cores that are left over help.
        let at_once = options.threads.get().min(jobs.len()).max(1);
        options.threads = NonZeroUsize::new(options.threads.get() / at_once).unwrap_or(NonZeroUsize::MIN);
        Self { request, client, options, at_once, bar, _stop: stop, finished: Vec::new() }
    }

    async fn run(mut self, jobs: Vec<Job>) -> Done {
        let mut jobs = jobs.into_iter();
        loop {
            let batch: Vec<_> = jobs.by_ref().take(DATA_KEY_BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let ready = match self.request {
                Request::Encrypt(request, _) => self.issue(request, batch).await,
                Request::Decrypt(request) | Request::Rewrap(request) => self.unwrap(request, batch).await,
            };
            self.work(ready).await;
        }
        self.bar.finish_and_clear();
        done(self.request, self.finished)
    }

    /// Asks for the data keys of a batch, all of them, whatever versions it takes.
    async fn issue(&mut self, request: &EncryptRequest, mut left: Vec<Job>) -> Vec<Ready> {
        let mut ready = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while !left.is_empty() {
            match issue(self.client, request, &left).await {
                Ok(issued) => {
                    let rest = left.split_off(issued.len().min(left.len()));
                    let jobs = std::mem::replace(&mut left, rest).into_iter();
                    ready.extend(jobs.zip(issued).map(|(job, Released { data_key, receipt })| Ready {
                        job,
                        receipt,
                        work: Work::Encrypt(data_key),
                    }));
                }
                Err(error) if is_due(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => self.give_up(std::mem::take(&mut left), error),
            }
        }
        ready
    }

    /// Reads the headers of a batch and asks for their data keys.
    async fn unwrap(&mut self, request: &DecryptRequest, batch: Vec<Job>) -> Vec<Ready> {
        let (mut sealed, mut items) = (Vec::new(), Vec::new());
        for job in batch {
            match header(&job, request) {
                Ok((input, item)) => {
                    sealed.push((job, input));
                    items.push(item);
                }
                Err(failure) => self.finished.push((job, Err(failure))),
            }
        }
        if items.is_empty() {
            return Vec::new();
        }
        let results = match self.client.unwrap_data_keys(items, request.content_id.clone()).await {
            Ok(results) => results,
            Err(error) => {
                self.give_up(sealed.into_iter().map(|(job, _)| job).collect(), error);
                return Vec::new();
            }
        };
        let mut ready = Vec::new();
        for ((job, input), result) in sealed.into_iter().zip(results) {
            match result {
                Ok(Released { data_key, receipt }) => {
                    ready.push(Ready { job, receipt, work: Work::Decrypt(input, data_key) });
                }
                Err(error) => self.finished.push((job, Err(error.into()))),
            }
        }
        ready
    }

    fn give_up(&mut self, jobs: Vec<Job>, error: ClientError) {
        let failure = Failure::from(error);
        self.finished.extend(jobs.into_iter().map(|job| (job, Err(failure.clone()))));
    }

    /// Works on what is ready, as many files at once as there are cores.
    async fn work(&mut self, ready: Vec<Ready>) {
        let (mut tasks, mut ready) = (JoinSet::new(), ready.into_iter());
        loop {
            while tasks.len() < self.at_once
                && let Some(Ready { job, receipt, work }) = ready.next()
            {
                let (options, entropy) = (self.options.clone(), self.client.session().settings().entropy.clone());
                tasks.spawn(async move {
                    let result = carry_out(&job, work, options, entropy).await;
                    (job, result.map(|done| (receipt, done)))
                });
            }
            match tasks.join_next().await {
                Some(Ok(finished)) => self.finished.push(finished),
                Some(Err(_)) => {}
                None => return,
            }
        }
    }
}

/// A file whose data key is there.
struct Ready {
    job: Job,
    receipt: Receipt,
    work: Work,
}

async fn issue(
    client: &Client,
    request: &EncryptRequest,
    jobs: &[Job],
) -> Result<Vec<Released<IssuedDataKey>>, ClientError> {
    let pair = |job: &Job| EncryptionContext::from_pairs([(SEGMENT, job.name.as_str())]);
    let segments =
        jobs.iter().map(pair).collect::<Result<_, _>>().map_err(|error| ContentError::Message(error.into()))?;
    let EncryptRequest { key, context, content_id } = request;
    let wanted = IssueDataKeys { context: context.clone(), content_id: content_id.clone(), count: None, segments };
    client.issue_data_keys(key, &wanted).await
}

fn is_due(error: &ClientError) -> bool {
    error.answer().is_some_and(|answer| answer.code == ErrorCode::RotationDue)
}

type Item = (WrappedDataKey, EncryptionContext);

/// The header of a message that is as it is demanded, and is that of the file that its name says.
fn header(job: &Job, request: &DecryptRequest) -> Result<(SealedInput<File>, Item), Failure> {
    let (file, _) = open(Some(&job.input))?;
    let sealed = SealedInput::read(file).map_err(ClientError::from)?;
    let wrapped = wanted_keys(sealed.header(), request).map_err(ClientError::from)?.into_iter().next();
    let wrapped = wrapped.ok_or_else(|| Failure::verification("no data key of the message is ours"))?;
    let context = sealed.header().context().clone();
    if context.value(SEGMENT).is_some_and(|segment| segment != job.name) {
        let (key, value) = (SEGMENT.into(), job.name.clone());
        return Err(ClientError::from(ContentError::OtherContext { key, value }).into());
    }
    Ok((sealed, (wrapped, context)))
}

async fn carry_out(
    job: &Job,
    work: Work,
    options: LocalOptions,
    entropy: Arc<dyn Entropy>,
) -> Result<LocalDone, Failure> {
    let failed = |error| Failure::file(&job.output, &error);
    let destination = Destination::open(Some(&job.output)).map_err(failed)?;
    let output = destination.blocking_writer().await.map_err(failed)?;
    let done = match work {
        Work::Encrypt(issued) => {
            let (input, _) = open(Some(&job.input))?;
            blocking(move || local::encrypt(issued, &*entropy, &options, input, output)).await
        }
        Work::Decrypt(sealed, data_key) => blocking(move || local::decrypt(sealed, &data_key, &options, output)).await,
    };
    let done = done.map_err(ClientError::from)?;
    destination.commit().await.map_err(failed)?;
    Ok(done)
}

fn done(request: &Request, mut finished: Vec<Finished>) -> Done {
    finished.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let exit = finished.iter().find_map(|(_, result)| result.as_ref().err().map(|failure| failure.exit));
    let (mut bytes, mut good, mut lines) = (0, 0, Vec::new());
    let files: Vec<Value> = finished
        .iter()
        .map(|(job, result)| match result {
            Ok((receipt, done)) => {
                bytes += done.bytes_in;
                good += 1;
                json!({
                    "input": job.input, "output": job.output, "bytes_in": done.bytes_in, "bytes_out": done.bytes_out,
                    "frames": done.frames, "log_id": receipt.log_id(), "sequence": receipt.sequence,
                    "receipt": ReceiptText(receipt.clone()),
                })
            }
            Err(failure) => {
                lines.push(format!("{}: {}", job.input.display(), failure.message()));
                json!({ "input": job.input, "error": failure.object() })
            }
        })
        .collect();
    let what = match request {
        Request::Encrypt(..) => "encrypted",
        Request::Decrypt(_) | Request::Rewrap(_) => "decrypted",
    };
    lines.insert(0, format!("{what} {good} of {} files, {bytes} bytes", files.len()));
    let json = json!({ "files": files, "done": good, "failed": finished.len() - good });
    Done { exit: exit.unwrap_or(Exit::Ok), ..Done::ok(json, lines.join("\n")) }
}
