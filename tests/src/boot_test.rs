//! The boot test: a real image in an emulated machine with the real NSM driver and real vsock, the real proxy and client on
//! the host, mock KMS and the signer of the emulated NSM's documents beside them.
//!
//! | module | what it is |
//! |---|---|
//! | `machine` | QEMU, its vsock device, the launcher's part |
//! | `stage` | people, KMS, images, the proxy |
//! | `trust` | the program that ships, with the test's roots in the places of AWS's |
//! | `story` | the steps, and what must hold after each |
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test program talks")]

mod machine;
mod stage;
mod story;
mod trust;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::MARKER;

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
struct Tools {
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
    /// The program that ships.
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
    let mut tools = Tools::parse();
    let keep = tools.keep.take();
    match story::play(tools, keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("boot test: {error:#}\n({MARKER})");
            ExitCode::FAILURE
        }
    }
}
