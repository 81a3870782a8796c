//! A program of its own, for whoever reaps waits for every child of its process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should fail loudly")]

use std::{
    process::Command,
    time::{Duration, Instant},
};

use enclave_app::pid1::reaper::reap;
use rustix::process::{getpid, set_child_subreaper};

/// A loaded machine is the normal case.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
#[allow(clippy::zombie_processes, reason = "that is what is tested")]
async fn whatever_becomes_an_orphan_leaves_nothing_behind_when_it_ends() {
    // Orphans come to us as they do to the first process of a machine.
    set_child_subreaper(Some(getpid())).unwrap();
    tokio::spawn(reap());
    let shell = Command::new("sh").args(["-c", "sleep 2 & sleep 3 &"]).spawn().unwrap();
    until("the shell's children are ours", || !children().is_empty() && !children().contains(&shell.id())).await;
    until("none is left", || children().is_empty()).await;
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}: {:?}", children());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Processes whose parent is this one, zombies among them.
fn children() -> Vec<u32> {
    let parent = std::process::id().to_string();
    let is_ours = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // `pid (name) state parent ...`, and a name may have anything in it.
        let after_name = stat.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(&parent)
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}
