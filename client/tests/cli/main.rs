//! The command line as scripts see it: exit codes, objects, texts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

mod attestation;
mod bench;
mod local;
mod offline;

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// Runs `confidential` in `dir`, with nothing of the caller's configuration.
fn confidential<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Ran {
    command(dir, args).output().map(Ran::new).unwrap()
}

fn command<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_confidential"));
    for name in ["SERVER", "IDENTITY", "MEASUREMENTS", "CONFIG"] {
        command.env_remove(format!("CONFIDENTIAL_{name}"));
    }
    command.current_dir(dir).env("HOME", dir).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").args(args);
    command
}

/// What a run left.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Standard output, which must be one object and nothing else.
    fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }
}
