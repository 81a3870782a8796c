//! `confidential gateway`: plain HTTP for tools on this machine.

use std::{
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use serde_json::json;
use tokio_util::sync::CancellationToken;
use transcode_confidential::entropy::OsEntropy;

use super::{
    args::{GatewayArgs, Global},
    connection,
    content::interrupted,
    environment::Environment,
    exit::{Done, Failure},
    files::{self, Access},
};
use crate::{
    ErrorKind,
    gateway::{Gateway, GatewayError, Settings, Token},
};

pub(super) fn run(request: GatewayArgs, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    start_logging(&request.log)?;
    let configured = connection::client(global, environment)?;
    let GatewayArgs { listen, token_file, key_uri, period, patience, max_connections, ready_file, .. } = request;
    let mut settings = Settings::new(listen, token(token_file.as_deref())?);
    settings.key_uri = key_uri;
    settings.period = period;
    settings.patience = Duration::from_secs(patience);
    settings.connections = max_connections.into();
    connection::block_on(async {
        let shutdown = CancellationToken::new();
        let client = configured.client.clone();
        let gateway = Gateway::start(client.clone(), settings, shutdown.clone()).await.map_err(not_started)?;
        // An enclave that is not there yet may come. One that is not believed is no enclave to serve anybody with.
        match client.log().await {
            Ok(view) => configured.notes(&view).iter().for_each(|note| tracing::info!("{note}")),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(%error, "the enclave is not there yet")
            }
            Err(error) => return Err(error.into()),
        }
        let urls = gateway.urls().join("\n") + "\n";
        if let Some(path) = &ready_file {
            files::replace(path, urls.as_bytes(), Access::Private)?;
        }
        say(&if global.json { format!("{}\n", json!({ "urls": gateway.urls() })) } else { urls });
        interrupted().await;
        tracing::info!("stopping");
        shutdown.cancel();
        let drained = gateway.drained().await;
        tracing::info!(connections = drained.accepted, aborted = drained.aborted, "stopped");
        if let Some(path) = &ready_file {
            let _ = std::fs::remove_file(path);
        }
        Ok(Done::said())
    })
}

/// Where nobody listens to standard output any more, there is nobody to tell.
pub(super) fn say(text: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Logs of a command that runs for long: to standard error.
pub(super) fn start_logging(filter: &str) -> Result<(), Failure> {
    let filter =
        tracing_subscriber::EnvFilter::try_new(filter).map_err(|error| Failure::usage(format!("--log: {error}")))?;
    let started =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false).try_init();
    // Somebody who runs us inside another program may have started it before.
    drop(started);
    Ok(())
}

fn token(file: Option<&Path>) -> Result<Token, Failure> {
    let fresh = || Token::generate(&OsEntropy).map_err(|error| Failure::file(Path::new("token"), &error));
    let Some(path) = file else { return fresh() };
    if !path.exists() {
        files::create(path, format!("{}\n", fresh()?.expose()).as_bytes(), Access::Private)?;
    }
    if files::is_readable_by_others(path) {
        return Err(Failure::file(path, &"others may read this secret; chmod 600"));
    }
    Token::from_text(files::read_text(path)?.trim_end()).map_err(|error| Failure::file(path, &error))
}

fn not_started(error: GatewayError) -> Failure {
    match error {
        GatewayError::NotLocal(_) => Failure::usage(format!("--listen: {error}")),
        GatewayError::Bind(_) => Failure::unavailable(error.to_string()),
    }
}
