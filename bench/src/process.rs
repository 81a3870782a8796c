//! The processes that are measured or killed: this very program, in another role.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
};

use clap::Subcommand;
use enclave_app::{Parts, clock::KernelBoottime, config::Config};
use testkit::nsm::{MockHypervisor, MockImage, MockPki};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use transcode_confidential::time::SystemClock;

use crate::deployment;

#[derive(Subcommand)]
pub(crate) enum Role {
    /// The proxy, as its binary runs it.
    Proxy { config: PathBuf },
    /// The enclave, on the NSM of a mock hypervisor whose root lies in the directory.
    Enclave { dir: PathBuf },
    /// The client's command line; prints its peak memory behind the rest.
    Client { arguments: Vec<std::ffi::OsString> },
}

pub(crate) fn run(role: Role) -> ExitCode {
    if let Role::Client { arguments } = role {
        let exit = client::cli::run(std::iter::once("confidential".into()).chain(arguments));
        println!("peak KiB {}", memory(std::process::id(), "VmHWM:"));
        return exit.into();
    }
    let shutdown = CancellationToken::new();
    runtime().block_on(async {
        let terminated = shutdown.clone();
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        tokio::spawn(async move {
            terminate.recv().await;
            terminated.cancel();
        });
        match role {
            Role::Proxy { config } => proxy(&config, shutdown).await,
            Role::Enclave { dir } => enclave(&dir, shutdown).await,
            Role::Client { .. } => unreachable!("it has run above"),
        }
    })
}

/// A runtime with the share of this machine's cores that one side gets: those of an enclave are never its parent's as well.
pub(crate) fn runtime() -> Runtime {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread().worker_threads((cores / 2).max(1)).enable_all().build().unwrap()
}

async fn proxy(config: &Path, shutdown: CancellationToken) -> ExitCode {
    let config = parent_proxy::config::Config::read(config).unwrap();
    let proxy = match parent_proxy::start(config, parent_proxy::Dependencies::system(), shutdown.clone()).await {
        Ok(proxy) => proxy,
        Err(error) => {
            eprintln!("proxy: {error}");
            return ExitCode::FAILURE;
        }
    };
    shutdown.cancelled().await;
    proxy.drained().await;
    ExitCode::SUCCESS
}

/// The enclave of a directory, launched anew.
pub(crate) fn enclave_parts(dir: &Path) -> Parts {
    let hypervisor = MockHypervisor::under(MockPki::load(dir), Arc::new(SystemClock));
    Parts {
        config: Config::from_toml(&std::fs::read_to_string(deployment::enclave_config(dir)).unwrap()).unwrap(),
        nsm: hypervisor.launch(&MockImage::named(deployment::IMAGE)),
        attestation_root: hypervisor.trust_root(),
        kms_roots: deployment::kms_roots(dir),
        boottime: Arc::new(KernelBoottime),
    }
}

async fn enclave(dir: &Path, shutdown: CancellationToken) -> ExitCode {
    let parts = enclave_parts(dir);
    match enclave_app::run(parts, |_| {}, shutdown).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("enclave: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A child; killed where it is dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn proxy(config: &Path) -> Self {
        Self::start(&["proxy".as_ref(), config.as_os_str()])
    }

    pub(crate) fn enclave(dir: &Path) -> Self {
        Self::start(&["enclave".as_ref(), dir.as_os_str()])
    }

    fn start(arguments: &[&std::ffi::OsStr]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("process").args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// SIGTERM, and waits.
    pub(crate) fn stop(mut self) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM);
        let status = self.0.wait().unwrap();
        assert!(status.success(), "it did not end well: {status}");
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Resident memory in KiB, and number of open files.
    pub(crate) fn size(&self) -> (u64, usize) {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.0.id())).map_or(0, Iterator::count);
        (memory(self.0.id(), "VmRSS:"), files)
    }

    /// Most resident memory so far, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        memory(self.0.id(), "VmHWM:")
    }
}

fn memory(process: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let figure = status.lines().find_map(|line| line.strip_prefix(what)?.trim().strip_suffix(" kB")?.parse().ok());
    figure.unwrap_or(0)
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
