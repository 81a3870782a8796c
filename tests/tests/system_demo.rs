//! The demo, as a newcomer runs it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const DEMO: &str = env!("CARGO_BIN_EXE_demo");

#[test]
fn every_step_of_the_demo_holds() {
    let output = Command::new(DEMO).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object and nothing else");
    assert_eq!(summary["held"].as_u64().unwrap() as usize, summary["steps"].as_array().unwrap().len());
    assert!(summary["held"].as_u64() > Some(10) && summary["events"].as_u64() > Some(20), "{summary}");
}

#[test]
fn a_demo_of_a_file_that_is_not_there_fails() {
    let output = Command::new(DEMO).arg("/there/is/no/such.mp4").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/there/is/no/such.mp4"));
}

/// A demo that stays up.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A demo that stays up in `dir`, and what it printed by then.
fn serve(dir: &Path) -> (Served, Vec<String>) {
    let mut command = Command::new(DEMO);
    let mut served = Served(command.args(["--serve", "--keep"]).arg(dir).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = Vec::new();
    for line in BufReader::new(served.0.stdout.take().unwrap()).lines() {
        lines.push(line.unwrap());
        if lines.last().unwrap().contains("Ctrl-C") {
            return (served, lines);
        }
    }
    panic!("the demo ended: {lines:#?}");
}

/// Processes that have the directory in their arguments.
fn processes_of(dir: &Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
    let text = dir.to_str().unwrap();
    processes.filter(|path| std::fs::read(path).is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))).count()
}

fn all_end(dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while processes_of(dir) > 0 {
        assert!(Instant::now() < deadline, "processes stay behind");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_commands_that_a_served_demo_prints_work_and_ctrl_c_ends_everything() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("demo");
    let (mut served, lines) = serve(&kept);
    let commands: Vec<&str> =
        lines.iter().filter_map(|line| line.split_once("--bin confidential -- ")).map(|(_, rest)| rest).collect();
    assert!(commands.len() >= 5, "{lines:#?}");
    for (number, command) in commands.into_iter().enumerate() {
        // The same command line, by the same code, without another build.
        let script = format!("printf hello | {DEMO} __confidential {command}");
        let output = Command::new("sh").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{number}: {script}: {}", String::from_utf8_lossy(&output.stderr));
        if command.contains(" decrypt ") {
            assert_eq!(output.stdout, b"hello");
        }
    }
    assert!(processes_of(&kept) >= 3, "demo, proxy and enclave");
    assert!(Command::new("kill").args(["-INT", &served.0.id().to_string()]).status().unwrap().success());
    assert!(served.0.wait().unwrap().success());
    all_end(&kept);
}

#[test]
fn nothing_stays_behind_when_the_demo_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("demo");
    let (served, _) = serve(&kept);
    drop(served);
    all_end(&kept);
}
