//! What each child process runs: production code, with the mocks handed in where the world would be.

use std::{ffi::OsString, io::Write as _, path::Path, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use enclave_app::{Parts, clock::KernelBoottime, config::Config};
use rustls::{RootCertStore, pki_types::CertificateDer};
use rustls_pki_types::pem::PemObject as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use transcode_confidential::time::SystemClock;

use crate::nsm::{MockHypervisor, MockImage, MockPki};

pub(super) const ENCLAVE: &str = "__enclave";
pub(super) const PROXY: &str = "__proxy";
pub(super) const CONFIDENTIAL: &str = "__confidential";

/// The line with which an enclave or a proxy says that it serves.
pub(super) const SERVING: &str = "serving";

/// Runs an actor where the first argument names one.
pub(super) fn act(args: &[OsString]) -> Option<ExitCode> {
    let (role, rest) = (args.get(1)?.to_str()?, args.get(2..).unwrap_or_default());
    let done = match role {
        CONFIDENTIAL => {
            let args = std::iter::once(OsString::from("confidential")).chain(rest.iter().cloned());
            return Some(client::cli::run(args).into());
        }
        ENCLAVE => enclave(Path::new(rest.first()?), rest.get(1)?.to_str()?),
        PROXY => proxy(Path::new(rest.first()?)),
        _ => return None,
    };
    Some(done.map_or_else(
        |error| {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    ))
}

/// The enclave: everything but NSM and roots is as in the production binary.
fn enclave(dir: &Path, image: &str) -> anyhow::Result<()> {
    start_logging();
    let hypervisor = MockHypervisor::under(MockPki::load(dir), Arc::new(SystemClock));
    let mut kms_roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(dir.join("kms-ca.pem"))? {
        kms_roots.add(certificate?)?;
    }
    let text = std::fs::read_to_string(dir.join("enclave.toml"))?;
    let parts = Parts {
        config: Config::from_toml(&text)?,
        nsm: hypervisor.launch(&MockImage::named(image)),
        attestation_root: hypervisor.trust_root(),
        kms_roots,
        boottime: Arc::new(KernelBoottime),
    };
    runtime()?.block_on(async {
        let shutdown = until_terminated()?;
        let serving = |serving: enclave_app::Serving| say_serving(&format!("{} {}", serving.log_id, serving.epoch));
        Ok(enclave_app::run(parts, serving, shutdown).await?)
    })
}

/// The proxy, as in its own binary.
fn proxy(config: &Path) -> anyhow::Result<()> {
    start_logging();
    let config = parent_proxy::config::Config::read(config)?;
    runtime()?.block_on(async {
        let shutdown = until_terminated()?;
        let proxy = parent_proxy::start(config, parent_proxy::Dependencies::system(), shutdown.clone()).await?;
        say_serving("");
        shutdown.cancelled().await;
        proxy.drained().await;
        Ok(())
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("starting threads")
}

/// Until SIGTERM, or until the demo is gone, however it went: it holds the other end of standard input.
fn until_terminated() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let alone = shutdown.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        alone.cancel();
    });
    let (mut term, signalled) = (signal(SignalKind::terminate())?, shutdown.clone());
    // Ctrl-C reaches every process of the terminal; the demo itself ends its children in order.
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = interrupt.recv() => {}
            }
        }
        signalled.cancel();
    });
    Ok(shutdown)
}

fn say_serving(what: &str) {
    println!("{SERVING} {what}");
    let _ = std::io::stdout().flush();
}

fn start_logging() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false).init();
}
