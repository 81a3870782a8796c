//! `confidential encrypt` and `confidential decrypt`: filters and files.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use serde_json::json;
use tokio::{
    io::AsyncRead,
    signal::unix::{SignalKind, signal},
};
use transcode_confidential::{
    message::{EncryptionContext, FrameLength},
    protocol::api::ReceiptText,
};

use super::{
    args::{Content, Decrypt, Encrypt, Global, Rewrap},
    connection::{self, Configured},
    destination::Destination,
    environment::Environment,
    exit::{Done, Failure},
    files, local,
    progress::{self, Watched},
};
use crate::{ClientError, ContentDone, DecryptRequest, EncryptRequest};

type Input = Box<dyn AsyncRead + Send + Unpin>;

pub(super) enum Request {
    Encrypt(EncryptRequest, Option<FrameLength>),
    Decrypt(DecryptRequest),
    Rewrap(DecryptRequest),
}

pub(super) fn encrypt(request: Encrypt, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let Encrypt { key, frame_length, content } = request;
    if content.local.out_dir.is_none() {
        not_to_a_terminal(&content)?;
    }
    let request = EncryptRequest { key, context: context(&content)?, content_id: content.content_id.clone() };
    run(Request::Encrypt(request, frame_length), &content, global, environment)
}

pub(super) fn decrypt(request: Decrypt, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let Decrypt { key, content } = request;
    let request = DecryptRequest {
        expected_key: key,
        expected_context: context(&content)?,
        content_id: content.content_id.clone(),
    };
    run(Request::Decrypt(request), &content, global, environment)
}

pub(super) fn rewrap(request: Rewrap, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let Rewrap { key, content } = request;
    not_to_a_terminal(&content)?;
    let request = DecryptRequest {
        expected_key: key,
        expected_context: context(&content)?,
        content_id: content.content_id.clone(),
    };
    run(Request::Rewrap(request), &content, global, environment)
}

fn not_to_a_terminal(content: &Content) -> Result<(), Failure> {
    if content.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::usage(
            "the message is binary and standard output is a terminal: give -o OUT, or -o - to insist",
        ));
    }
    Ok(())
}

fn run(request: Request, content: &Content, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    if content.local.local && matches!(request, Request::Rewrap(_)) {
        return Err(Failure::usage("rewrap works in the enclave only: --local decrypt and encrypt come to the same"));
    }
    if content.local.out_dir.is_some() {
        return local::many(&request, content, global, environment);
    }
    if content.input.len() > 1 {
        return Err(Failure::usage("several files need --local --out-dir DIR"));
    }
    if global.json && is_stdout(content.output.as_deref()) {
        return Err(Failure::usage("content and --json cannot both go to standard output: give -o OUT"));
    }
    let configured = connection::client(global, environment)?;
    connection::block_on(async {
        tokio::select! {
            biased;
            number = interrupted() => Err(Failure::signal(number)),
            result = process(&request, content, configured) => result,
        }
    })
}

async fn process(request: &Request, content: &Content, configured: Configured) -> Result<Done, Failure> {
    let client = &configured.client;
    let input = content.input.first().map(PathBuf::as_path);
    let to_file = !is_stdout(content.output.as_deref());
    let mut destination = Destination::open(content.output.as_deref())
        .map_err(|error| Failure::file(content.output.as_deref().unwrap_or(Path::new("-")), &error))?;
    // An input that cannot be read is said before anything is asked of the enclave.
    let opened = if content.local.local { None } else { Some(open(input).await?) };
    let view = client.log().await?;
    let done = match opened {
        None => local::one(request, content, client, input, &destination).await?,
        Some(input) => match request {
            Request::Encrypt(request, _) => client.encrypt(request, input, &mut destination.writer()).await,
            Request::Decrypt(request) => client.decrypt(request, input, &mut destination.writer()).await,
            Request::Rewrap(request) => client.rewrap(request, input, &mut destination.writer()).await,
        }?,
    };
    let receipt = ReceiptText(done.receipt.clone());
    connection::keep(&receipt, &content.receipt)?;
    destination.commit().await.map_err(|error| ClientError::from(crate::ContentError::Output(error)))?;
    let json = json!({
        "key": done.key,
        "version": done.version,
        "context": done.context,
        "bytes_in": done.bytes_in,
        "bytes_out": done.bytes_out,
        "log_id": done.receipt.log_id(),
        "sequence": done.receipt.sequence,
        "receipt": receipt,
    });
    // Standard output carries the content; what there is to say about it is said only where it went to a file.
    let mut finished = Done::ok(json, if to_file { summary(request, &done) } else { String::new() });
    finished.notes = configured.notes(&view);
    Ok(finished)
}

fn summary(request: &Request, done: &ContentDone) -> String {
    let what = match request {
        Request::Encrypt(..) => "encrypted",
        Request::Decrypt(_) => "decrypted",
        Request::Rewrap(_) => "encrypted anew",
    };
    format!(
        "{what} {} bytes to {} under {} version {}\non the record as event {} of log {}",
        done.bytes_in,
        done.bytes_out,
        done.key,
        done.version,
        done.receipt.sequence,
        done.receipt.log_id()
    )
}

async fn open(path: Option<&Path>) -> Result<Watched<Input>, Failure> {
    let Some(path) = path.filter(|path| *path != Path::new("-")) else {
        let stdin = files::of_process(&std::io::stdin()).map_err(|error| Failure::file(Path::new("-"), &error))?;
        return Ok(Watched::new(Box::new(stdin), progress::bar(None)));
    };
    let file = tokio::fs::File::open(path).await.map_err(|error| Failure::file(path, &error))?;
    let metadata = file.metadata().await.map_err(|error| Failure::file(path, &error))?;
    if metadata.is_dir() {
        return Err(Failure::file(path, &"is a directory"));
    }
    Ok(Watched::new(Box::new(file), progress::bar(metadata.is_file().then_some(metadata.len()))))
}

fn context(content: &Content) -> Result<EncryptionContext, Failure> {
    EncryptionContext::from_pairs(content.context.iter().cloned())
        .map_err(|error| Failure::usage(format!("--context: {error}")))
}

fn is_stdout(output: Option<&Path>) -> bool {
    output.is_none_or(|path| path == Path::new("-"))
}

/// The signal that asks this process to end. Ending this way removes what was written so far.
pub(super) async fn interrupted() -> u8 {
    const SIGINT: u8 = 2;
    const SIGTERM: u8 = 15;
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => SIGINT,
        _ = terminate.recv() => SIGTERM,
    }
}
