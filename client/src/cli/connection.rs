//! From options to what they stand for: roots, images, identities, clients.

use std::path::Path;

use transcode_confidential::{
    attestation::{ImagePolicy, Measurements, TrustRoot},
    protocol::api::ReceiptText,
};
use transport::Endpoint;

use super::{
    args::{Global, ReceiptFile},
    environment::{Config, Environment},
    exit::Failure,
    files::{self, Access},
};
use crate::{
    Client, LogView,
    log_memory::LogMemory,
    session::{Identity, Session, Settings},
};

/// The root that documents must lead to.
pub(super) fn root(global: &Global) -> Result<TrustRoot, Failure> {
    match &global.root {
        None => Ok(TrustRoot::aws()),
        Some(path) => TrustRoot::from_pem(&files::read(path)?).map_err(|error| Failure::file(path, &error)),
    }
}

/// The images that are accepted. Nobody gets "any" without having asked for it.
pub(super) fn image_policy(global: &Global, environment: &Environment) -> Result<ImagePolicy, Failure> {
    image_policy_of(global, environment, &environment.config()?)
}

fn image_policy_of(global: &Global, environment: &Environment, config: &Config) -> Result<ImagePolicy, Failure> {
    if global.any_image {
        return Ok(ImagePolicy::danger_any_image());
    }
    let files = [&global.measurements, &environment.measurements, &config.measurements];
    let files = files.into_iter().find(|files| !files.is_empty()).map(Vec::as_slice).unwrap_or_default();
    let mut all: Option<Measurements> = None;
    for path in files {
        let read = Measurements::from_json(files::read(path)?).map_err(|error| Failure::file(path, &error))?;
        all = Some(match all {
            Some(others) => others.and(read),
            None => read,
        });
    }
    all.map(ImagePolicy::Expect).ok_or_else(|| {
        Failure::usage(
            "which image is expected? Give --measurements FILE, the file that the image build wrote (or \
             CONFIDENTIAL_MEASUREMENTS, or measurements in the configuration file). --any-image leaves this check out: \
             then a document of anybody's enclave passes",
        )
    })
}

/// A client, and what a person should know of its options.
pub(super) struct Configured {
    pub(super) client: Client,
    notes: Vec<String>,
}

/// A client for the configured server, its identity and its image.
pub(super) fn client(global: &Global, environment: &Environment) -> Result<Configured, Failure> {
    let config = environment.config()?;
    let server = global.server.as_ref().or(environment.server.as_ref()).or(config.server.as_ref());
    let endpoint = endpoint(server.ok_or_else(|| {
        Failure::usage("which server? Give --server ADDR, CONFIDENTIAL_SERVER, or server in the configuration file")
    })?)?;
    let identity = global.identity.as_ref().or(environment.identity.as_ref()).or(config.identity.as_ref());
    let identity = identity.ok_or_else(|| {
        Failure::usage(
            "who are you? Give --identity CERT_AND_KEY, CONFIDENTIAL_IDENTITY, or identity in the configuration file; \
             confidential pki client NAME makes one",
        )
    })?;
    let mut notes = Vec::new();
    if global.any_image {
        notes.push("the image is not checked (--any-image): any enclave may answer".into());
    }
    if files::is_readable_by_others(identity) {
        notes.push(format!("{}: others may read this private key; chmod 600", identity.display()));
    }
    let identity = Identity::from_pem(&files::read(identity)?).map_err(|error| Failure::file(identity, &error))?;
    let settings = Settings::new(root(global)?, image_policy_of(global, environment, &config)?, Some(identity));
    let state = global.state.clone().or(config.state).or_else(|| environment.state()).ok_or_else(|| {
        Failure::usage("where to remember checkpoints? Give --state DIR; HOME and XDG_STATE_HOME are not set")
    })?;
    let client = Client::new(Session::new(endpoint, settings), LogMemory::new(state), global.accept_log);
    if global.accept_restored {
        client.accept_restored();
    }
    Ok(Configured { client, notes })
}

impl Configured {
    /// What a person should know about this connection before relying on it.
    pub(super) fn notes(self, view: &LogView) -> Vec<String> {
        let mut notes = self.notes;
        if view.known_before().is_none() {
            let (log_id, size) = (view.log_id(), view.checkpoint().state().size);
            notes.push(format!("first contact with log {log_id}, {size} events: remembered from now on"));
        }
        notes
    }
}

/// An endpoint; `HOST:PORT` stands for TCP.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, Failure> {
    text.parse::<Endpoint>()
        .or_else(|error| format!("tcp:{text}").parse::<Endpoint>().map_err(|_| error))
        .map_err(|error| Failure::usage(error.to_string()))
}

/// The client under the idempotency key that was given; without one it draws its own.
pub(super) fn once(client: &Client, idempotency_key: Option<&str>) -> Client {
    idempotency_key.map_or_else(|| client.clone(), |key| client.repeatable_as(key))
}

/// Keeps a receipt where the caller asked for it.
pub(super) fn keep(receipt: &ReceiptText, file: &ReceiptFile) -> Result<(), Failure> {
    match &file.path {
        None => Ok(()),
        Some(path) => files::replace(path, format!("{receipt}\n").as_bytes(), Access::Public),
    }
}

/// Runs what waits for the network. Reads of standard input that are still under way do not keep the process.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::file(Path::new("runtime"), &error))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_port_stand_for_tcp() {
        assert_eq!(endpoint("localhost:9443").unwrap().to_string(), "tcp:localhost:9443");
        assert_eq!(endpoint("unix:/run/x.sock").unwrap().to_string(), "unix:/run/x.sock");
        assert_eq!(endpoint("[::1]:1").unwrap().to_string(), "tcp:[::1]:1");
        for wrong in ["localhost", "https://enclave:443", ""] {
            assert_eq!(endpoint(wrong).unwrap_err().exit.code(), 2, "{wrong}");
        }
    }
}
