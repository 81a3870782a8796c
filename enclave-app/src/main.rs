//! The enclave's one binary. It takes no arguments and reads no environment: the image decides everything.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use enclave_app::{Parts, clock::KernelBoottime, config::Config, kms::roots, nsm::NsmDevice};
use tokio_util::sync::CancellationToken;
use transcode_confidential::attestation::TrustRoot;

/// The measured configuration, inside the image.
const CONFIG: &str = "/etc/transcode-confidential/enclave.toml";

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_target(false).with_ansi(false).init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(CONFIG).with_context(|| format!("reading {CONFIG}"))?;
    let parts = Parts {
        config: Config::from_toml(&text).with_context(|| format!("in {CONFIG}"))?,
        nsm: Arc::new(NsmDevice::open()?),
        attestation_root: TrustRoot::aws(),
        kms_roots: roots::amazon()?,
        boottime: Arc::new(KernelBoottime),
    };
    let shutdown = CancellationToken::new();
    let runtime = tokio::runtime::Runtime::new()?;
    let signalled = shutdown.clone();
    runtime.spawn(async move {
        if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            terminate.recv().await;
            signalled.cancel();
        }
    });
    runtime.block_on(enclave_app::run(parts, |serving| tracing::info!(?serving, "serving"), shutdown))?;
    Ok(())
}
