//! The benches of the system: `cargo measure --help`.
//!
//! They run what ships, with proxy and enclave as processes of their own where that is what is measured; what stands in for
//! AWS comes from `testkit`, so they cannot be verbs of the command `confidential`, which holds no mocks. Every figure that
//! can be is a ratio to a limit measured in the same run, alternating with it: a slow or a busy machine changes both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench that cannot go on should fail loudly, and prints what it finds"
)]

mod all;
mod append;
mod deployment;
mod kill;
mod large_log;
mod machine;
mod persisted;
mod process;
mod readme;
mod rivals;
mod soak;
mod statistics;
mod table;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use table::Table;

/// Benches and long runs of the whole system on this machine.
#[derive(Parser)]
#[command(name = "confidential-bench", version)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Output {
    /// Print one JSON object.
    #[arg(long, global = true)]
    json: bool,
    /// Exit with 1 where a ratio misses its target. Without it a slow machine never fails, only a wrong one.
    #[arg(long, global = true)]
    targets: bool,
    /// Where to put logs; a directory on the disk to be measured.
    #[arg(long, global = true, value_name = "DIR", default_value = "/tmp")]
    dir: PathBuf,
    /// Small sizes: seconds instead of minutes.
    #[arg(long, global = true)]
    short: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Appends through enclave and proxy to disk, beside a bare loop, SQLite and a line a sync.
    Audit {
        /// How many append at once.
        #[arg(long, value_delimiter = ',', default_values_t = append::APPENDERS)]
        appenders: Vec<usize>,
    },
    /// Verifies logs offline with the client's verifier, beside bare hashing.
    Verify {
        /// Sizes of the logs, in events.
        #[arg(long, value_delimiter = ',')]
        events: Vec<u64>,
    },
    /// Kills proxy and enclave under load, again and again, and verifies the log after each kill.
    Kill {
        /// How often.
        #[arg(long, default_value_t = 200)]
        cycles: u32,
    },
    /// Mixed load with rotations and restarts; memory and open files as a series; verifies at the end.
    Soak {
        /// How long.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
    },
    /// All of these, one table; unless short, written to bench/RESULTS.md.
    All {
        /// How long to soak.
        #[arg(long, default_value_t = 2.0)]
        minutes: f64,
        /// Also build and run the benches of single crates, and append what they print.
        #[arg(long)]
        crates: bool,
    },
    /// The processes that the others start.
    #[command(hide = true)]
    Process {
        #[command(subcommand)]
        role: process::Role,
    },
}

fn main() -> ExitCode {
    let Command { verb, output } = Command::parse();
    tempfile::env::override_temp_dir(&output.dir).unwrap();
    let table = match verb {
        Verb::Process { role } => return process::run(role),
        Verb::Audit { appenders } => append::run(&output, &appenders),
        Verb::Verify { events } => verify::run(&output, &events),
        Verb::Kill { cycles } => kill::run(cycles),
        Verb::Soak { minutes } => soak::run(minutes),
        Verb::All { minutes, crates } => all::run(&output, minutes, crates),
    };
    conclude(&table, &output)
}

fn conclude(table: &Table, output: &Output) -> ExitCode {
    match output.json {
        true => println!("{}", table.json()),
        false => println!("{}", table.text()),
    }
    let missed = table.missed();
    missed.iter().for_each(|name| eprintln!("missed its target: {name}"));
    if output.targets && !missed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
