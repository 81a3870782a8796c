//! The demo: mock NSM and mock KMS outside; enclave, proxy and client as they ship, each a process of its own.
//!
//! | module | what it is |
//! |---|---|
//! | `stage` | the directory, the files, the processes |
//! | `actors` | what each child process runs |
//! | `story` | the steps, and what must hold after each |
//! | `media` | the file to protect |
//! | `sample` | one for those who bring none |
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demo talks")]

mod actors;
mod media;
mod sample;
mod stage;
mod story;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::MARKER;

/// Runs the whole system on this machine and explains each step.
///
/// The enclave, the parent proxy and the client are the code that ships, in processes of their own; a mock NSM signs
/// attestation documents in the genuine format, and a mock KMS verifies them. Exit code 0 only if every step held.
#[derive(Debug, Parser)]
#[command(name = "cargo demo")]
struct Arguments {
    /// A file to encrypt and decrypt; without it, a sample is made.
    file: Option<PathBuf>,
    /// Stay up and print commands for another terminal; Ctrl-C ends it.
    #[arg(long)]
    serve: bool,
    /// Print one JSON object at the end, and nothing else on standard output.
    #[arg(long)]
    json: bool,
    /// Keep everything in this directory, which must not exist yet.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// The program: the demo, or one of the processes that it starts.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = actors::act(&args) {
        return code;
    }
    let arguments = Arguments::parse_from(args);
    match story::tell(arguments.file, arguments.serve, arguments.json, arguments.keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}\n({MARKER})");
            ExitCode::FAILURE
        }
    }
}
