//! `confidential bench`: another program, found as git finds its own.
//!
//! The benches run proxy and enclave on mocks of NSM and KMS, and SQLite beside them: nothing that a program that ships may hold.

use std::{ffi::OsString, io, os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use super::exit::Failure;

const PROGRAM: &str = "confidential-bench";

/// Goes on as the other program, in this very process; comes back only where there is none.
pub(super) fn become_it(arguments: Vec<OsString>, json: bool) -> Failure {
    let mut command = Command::new(beside_this_one().unwrap_or_else(|| PROGRAM.into()));
    let error = command.args(arguments).args(json.then_some("--json")).exec();
    if error.kind() == io::ErrorKind::NotFound {
        Failure::usage(format!(
            "there is no {PROGRAM}, neither beside this program nor on the path. It is not part of the packages, since it holds \
             mocks of NSM and KMS. In the sources: `cargo build --release -p bench` puts it into target/release, and `cargo \
             measure` builds and runs it"
        ))
    } else {
        Failure::usage(format!("{PROGRAM} cannot be run: {error}"))
    }
}

fn beside_this_one() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name(PROGRAM);
    path.is_file().then_some(path)
}
