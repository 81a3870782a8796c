//! The program around the service: what the binary does, handed nothing but whom it trusts.
//!
//! As the first process of a machine it prepares the machine before and ends it afterwards ([`crate::pid1`]); as any other
//! process, under an init of somebody else's, it does neither. All else is the same.

use std::{error::Error, process::ExitCode, sync::Arc};

use rustls::RootCertStore;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use transcode_confidential::attestation::TrustRoot;

use crate::{
    Fatal, Parts, Serving,
    clock::KernelBoottime,
    config::{Config, ConfigError},
    console::Console,
    nsm::{NsmDevice, NsmError},
    pid1::{self, MachineError, launcher, memory::Memory},
};

/// The measured configuration, inside the image.
pub const CONFIG: &str = "/etc/transcode-confidential/enclave.toml";

/// Whom the enclave believes. The shipped binary names AWS and Amazon; nothing in an image can name others.
pub struct Trust {
    /// The root that documents of the NSM chain to.
    pub attestation_root: TrustRoot,
    /// The certificate authorities that KMS may use.
    pub kms_roots: RootCertStore,
}

/// Why the program ended otherwise than by a shutdown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The binary's own roots cannot be read.
    #[error("the roots of trust: {0}")]
    Trust(Box<dyn Error + Send + Sync>),
    /// The machine is not fit for the service.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The image holds no configuration.
    #[error("reading {CONFIG}: {0}")]
    Unreadable(std::io::Error),
    /// The configuration is not accepted.
    #[error("in {CONFIG}: {0}")]
    Config(#[from] ConfigError),
    /// There is no NSM.
    #[error(transparent)]
    Nsm(#[from] NsmError),
    /// No threads or no signals.
    #[error("starting threads: {0}")]
    Runtime(std::io::Error),
    /// The service ended.
    #[error(transparent)]
    Service(#[from] Fatal),
}

/// Runs the service until it is told to stop or cannot go on; says on standard output which. As the first process it takes
/// the machine down with it.
pub fn main(trust: impl FnOnce() -> Result<Trust, Box<dyn Error + Send + Sync>>) -> ExitCode {
    pid1::power::end_on_panic();
    Console::new(std::io::stdout()).start();
    let ended = run(trust);
    match &ended {
        Ok(()) => tracing::info!(memory = memory(), "stopped; the log is sealed"),
        Err(error) => tracing::error!("{error}"),
    }
    if pid1::is_first_process() {
        pid1::power::end();
    }
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(trust: impl FnOnce() -> Result<Trust, Box<dyn Error + Send + Sync>>) -> Result<(), ProgramError> {
    let first = pid1::is_first_process();
    if first {
        pid1::prepare()?;
    }
    let text = std::fs::read_to_string(CONFIG).map_err(ProgramError::Unreadable)?;
    let config = Config::from_toml(&text)?;
    if first {
        pid1::modules::await_nsm()?;
    }
    let nsm = NsmDevice::open()?;
    if first {
        pid1::randomness::secure(&nsm)?;
    }
    let Trust { attestation_root, kms_roots } = trust().map_err(ProgramError::Trust)?;
    let launcher = launcher::of_parent(&config.parent.host);
    let parts = Parts { config, nsm: Arc::new(nsm), attestation_root, kms_roots, boottime: Arc::new(KernelBoottime) };

    let runtime = tokio::runtime::Runtime::new().map_err(ProgramError::Runtime)?;
    runtime.block_on(async {
        let shutdown = until_signalled().map_err(ProgramError::Runtime)?;
        if first {
            tokio::spawn(pid1::reaper::reap());
            if let Some(launcher) = launcher
                && let Err(error) = launcher::greet(&launcher).await
            {
                tracing::warn!("the launcher was not greeted: {error}");
            }
        }
        Ok(crate::run(parts, say_serving, shutdown).await?)
    })
}

fn say_serving(serving: Serving) {
    let Serving { endpoint, log_id, epoch } = serving;
    tracing::info!(%endpoint, %log_id, %epoch, memory = memory(), "serving");
}

fn memory() -> String {
    Memory::now().map(|memory| memory.to_string()).unwrap_or_default()
}

/// Cancelled by SIGTERM, or by SIGINT, which the first process gets for Ctrl-Alt-Del.
fn until_signalled() -> std::io::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let signalled = shutdown.clone();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        signalled.cancel();
    });
    Ok(shutdown)
}
