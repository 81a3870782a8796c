//! `parent-proxy`: reads its configuration, starts, reloads on SIGHUP, stops the enclave on SIGUSR1, drains on SIGTERM.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser as _;
use parent_proxy::{
    Dependencies,
    cli::{Arguments, exit_code, raise_file_limit, start_logging},
    config::Config,
    start,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging(&arguments);
    run(&arguments).map_or_else(
        |problem| {
            error!("{problem:#}");
            exit_code(&problem)
        },
        |()| ExitCode::SUCCESS,
    )
}

#[tokio::main]
async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = Config::read(&arguments.config)?;
    if arguments.check {
        info!(config = %arguments.config.display(), "the configuration is valid");
        return Ok(());
    }
    raise_file_limit();
    let shutdown = CancellationToken::new();
    let (mut hup, mut term, mut int) =
        (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut stop_enclave = signal(SignalKind::user_defined1())?;
    let dependencies = Dependencies { variables: Arc::new(variable), ..Dependencies::system() };
    let proxy = start(config, dependencies, shutdown.clone()).await?;
    loop {
        tokio::select! {
            _ = hup.recv() => match Config::read(&arguments.config).context("the configuration stays as it was") {
                Ok(config) => info!(needing_restart = ?proxy.reload(config), "took over the configuration"),
                Err(problem) => {
                    proxy.metrics().reloads_refused_total.increment();
                    warn!("{problem:#}");
                }
            },
            _ = stop_enclave.recv() => match proxy.stop_enclave() {
                true => info!("the enclave is asked to stop"),
                false => warn!("no enclave has a session: there is none to stop"),
            },
            _ = term.recv() => break,
            _ = int.recv() => break,
        }
    }
    shutdown.cancel();
    proxy.drained().await;
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment, for credentials from there")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
