//! The boot test: a real image in an emulated machine with the real NSM driver and real vsock, the real proxy and client on
//! the host, mock KMS and the signer of the emulated NSM's documents beside them.
//!
//! | module | what it is |
//! |---|---|
//! | `machine` | QEMU, its vsock device, the launcher's part |
//! | `stage` | people, KMS, images, the proxy |
//! | `story` | the steps, and what must hold after each |
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test program talks")]

mod machine;
mod stage;
mod story;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use crate::{
    MARKER,
    kms::{MockKms, MockKmsOptions},
    nsm::MockPki,
};

/// A line for whoever watches.
macro_rules! say {
    ($($what:tt)*) => {
        println!($($what)*)
    };
}
use say;

/// Boots real images in an emulated machine. `eif/boot-test/run` prepares everything and calls this.
#[derive(Debug, Parser)]
#[command(name = "boot-test")]
struct Arguments {
    #[command(subcommand)]
    command: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    /// Make the roots of trust that test images are built with, where they are not there yet; print them for the build's
    /// environment.
    Roots {
        /// Where they are kept.
        folder: PathBuf,
    },
    /// Build images and boot them.
    Run(Tools),
}

/// Files and programs that were made before.
#[derive(Debug, clap::Args)]
struct Tools {
    /// Where the roots are.
    #[arg(long)]
    roots: PathBuf,
    /// QEMU with the machine type and the signing patch.
    #[arg(long)]
    qemu: PathBuf,
    /// vhost-device-vsock.
    #[arg(long)]
    vhost: PathBuf,
    /// A folder with `vmlinuz` and `modules`.
    #[arg(long)]
    kernel: PathBuf,
    /// The program of `cargo eif`.
    #[arg(long)]
    eif: PathBuf,
    /// The program of the test images, built with the roots.
    #[arg(long)]
    program: PathBuf,
    /// The proxy.
    #[arg(long)]
    proxy: PathBuf,
    /// The client.
    #[arg(long)]
    confidential: PathBuf,
    /// Keep everything in this folder, which must not exist yet; a short path, for there are sockets in it.
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// The program.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Step::Roots { folder } => roots(&folder),
        Step::Run(mut tools) => {
            let keep = tools.keep.take();
            story::play(tools, keep)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("boot test: {error:#}\n({MARKER})");
            ExitCode::FAILURE
        }
    }
}

/// The roots outlive a run, so that the program of the test images is built once.
fn roots(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let done = folder.join("made");
    if !done.exists() {
        MockPki::generate().save(folder);
    }
    let pki = MockPki::load(folder);
    let mut options = MockKmsOptions::new(pki.trust_root());
    options.state_file = Some(stage::kms_state(folder));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let authority = runtime.block_on(async { MockKms::start(options).await.authority_pem() });
    std::fs::write(&done, b"")?;
    let nsm = CertificateDer::from_pem_slice(pki.root_pem().as_bytes()).context("the NSM's root")?;
    let kms = CertificateDer::from_pem_slice(authority.as_bytes()).context("KMS's root")?;
    say!("BOOT_IMAGE_NSM_ROOT={}", hex::encode(nsm));
    say!("BOOT_IMAGE_KMS_ROOT={}", hex::encode(kms));
    Ok(())
}
