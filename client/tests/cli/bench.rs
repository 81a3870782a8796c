//! `confidential bench` is another program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Ran;

#[test]
fn the_benches_are_another_program_and_without_it_one_learns_how_to_build_it() {
    let dir = tempfile::tempdir().unwrap();
    let own = alone(dir.path());
    let ran =
        Command::new(own).args(["--json", "bench", "audit"]).env("PATH", dir.path()).output().map(Ran::new).unwrap();
    let ran = ran.expect(2);
    assert!(ran.stderr.contains("cargo build --release -p bench"), "{}", ran.stderr);
    assert_eq!(ran.json()["error"]["code"], "USAGE");
}

#[test]
fn the_program_beside_this_one_gets_every_argument_and_its_exit_code_counts() {
    let dir = tempfile::tempdir().unwrap();
    let own = alone(dir.path());
    script(&dir.path().join("confidential-bench"), "beside");
    fs::create_dir(dir.path().join("path")).unwrap();
    script(&dir.path().join("path/confidential-bench"), "path");
    let run = |args: &[&str]| Command::new(&own).args(args).output().map(Ran::new).unwrap().expect(7).stdout;
    assert_eq!(run(&["bench", "soak", "--minutes", "3", "--help"]), "beside soak --minutes 3 --help\n");
    assert_eq!(run(&["--json", "bench", "audit"]), "beside audit --json\n");
    assert_eq!(run(&["bench", "--help"]), "beside --help\n");
    fs::remove_file(dir.path().join("confidential-bench")).unwrap();
    let path = format!("{}:/usr/bin:/bin", dir.path().join("path").display());
    let ran = Command::new(&own).args(["bench", "audit"]).env("PATH", path).output().map(Ran::new).unwrap();
    assert_eq!(ran.expect(7).stdout, "path audit\n");
}

/// The program where nothing lies beside it: in the directory that it was built into the benches may.
fn alone(dir: &Path) -> PathBuf {
    let own = dir.join("confidential");
    done(Command::new("cp").arg(env!("CARGO_BIN_EXE_confidential")).arg(&own));
    own
}

fn script(path: &Path, name: &str) {
    let text = format!("#!/bin/sh\necho {name} \"$@\"\nexit 7\n");
    done(Command::new("sh").args(["-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\""]).arg(path).arg(text));
}

/// What will be run is written by a process of its own: a file that this one holds open for writing is held, too, by whatever
/// another test starts at that moment, and cannot be run until that has begun.
fn done(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}
