//! The binary: what it says, how it exits, what it holds when it is killed.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use transcode_confidential::protocol::host::{HostError, Reply, Request};
use transport::Endpoint;

use crate::{
    enclave::{Connection, Ledger, SOON},
    oracle,
};

const CONFIG: &str = r#"enclave = "unix:$DIR/enclave"
drain = "1s"
[relay]
listen = ["unix:$DIR/relay"]
[host]
listen = "unix:$DIR/host"
[store]
directory = "$DIR/log"
segment_size = "64KiB"
reserve = 0
"#;

struct Process {
    child: Child,
}

impl Process {
    fn start(directory: &Path) -> Self {
        let child = command(directory).stderr(Stdio::null()).spawn().unwrap();
        Self { child }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parent-proxy"));
    command.arg("--config").arg(directory.join("proxy.toml"));
    command
}

fn configured(config: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), config);
    directory
}

fn write(directory: &Path, config: &str) {
    let config = config.replace("$DIR", directory.to_str().unwrap());
    std::fs::write(directory.join("proxy.toml"), config).unwrap();
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

async fn hello(endpoint: &Endpoint) -> (Connection, Reply) {
    let start = Instant::now();
    loop {
        if endpoint.connect(SOON).await.is_ok() {
            let (connection, reply) = Connection::hello(endpoint, 1).await;
            if reply != Reply::Failed(HostError::Fenced) {
                return (connection, reply);
            }
        }
        assert!(start.elapsed() < SOON, "the proxy does not come up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn help_teaches_and_check_checks() {
    let help = Command::new(env!("CARGO_BIN_EXE_parent-proxy")).arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    for word in ["SIGHUP", "[store]", "Exit codes", "--check"] {
        assert!(text(&help).contains(word), "{word}");
    }
    // The example of the help is a configuration.
    let example: String = text(&help)
        .lines()
        .skip_while(|line| !line.starts_with("    enclave"))
        .take_while(|line| !line.starts_with("Exit"))
        .fold(String::new(), |all, line| all + line.trim() + "\n");
    let directory = configured(&example);
    let checked = command(directory.path()).arg("--check").output().unwrap();
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked));
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let binary = || Command::new(env!("CARGO_BIN_EXE_parent-proxy"));
    assert_eq!(binary().output().unwrap().status.code(), Some(2));
    assert_eq!(binary().args(["--config", "x", "--log", "=="]).output().unwrap().status.code(), Some(2));
    assert_eq!(binary().args(["--config", "/nonexistent"]).output().unwrap().status.code(), Some(3));
    let broken = configured(&CONFIG.replace("reserve = 0", "reserve = \"lots\""));
    let output = command(broken.path()).arg("--check").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains("line 10"), "{}", text(&output));
    let unbindable = configured(&CONFIG.replace("$DIR/relay", "/nonexistent/relay"));
    assert_eq!(command(unbindable.path()).output().unwrap().status.code(), Some(6));
    let unopenable = configured(&CONFIG.replace("$DIR/log", "/proc/log"));
    assert_eq!(command(unopenable.path()).output().unwrap().status.code(), Some(6));
}

#[tokio::test]
async fn a_second_proxy_on_the_same_store_does_not_start() {
    let directory = configured(CONFIG);
    let _first = Process::start(directory.path());
    let host = Endpoint::Unix(directory.path().join("host"));
    let _session = hello(&host).await;
    let second = command(directory.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(6));
    assert!(text(&second).contains("is open in another process"), "{}", text(&second));
}

#[tokio::test]
async fn sighup_takes_over_what_is_valid_and_sigterm_ends_with_zero() {
    let directory = configured(&format!("{CONFIG}[admin]\nlisten = \"unix:$DIR/admin\"\n"));
    let mut process = Process::start(directory.path());
    let host = Endpoint::Unix(directory.path().join("host"));
    let (mut session, _) = hello(&host).await;
    let reloads = async |name: &str| -> u64 {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = Endpoint::Unix(directory.path().join("admin")).connect(SOON).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    let until = async |name: &str, count: u64| {
        let start = Instant::now();
        while reloads(name).await != count {
            assert!(start.elapsed() < SOON, "{name} does not become {count}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    write(directory.path(), "nonsense");
    process.signal(Signal::HUP);
    until("transcode_proxy_reloads_refused_total", 1).await;
    write(directory.path(), &format!("{CONFIG}[admin]\nlisten = \"unix:$DIR/admin\"\n").replace("drain", "#"));
    process.signal(Signal::HUP);
    until("transcode_proxy_reloads_total", 1).await;
    assert_eq!(session.call(&Request::Ping).await, Reply::Done);
    process.signal(Signal::TERM);
    let status = tokio::task::spawn_blocking(move || process.child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(!directory.path().join("host").exists());
}

/// `PROXY_KILL_CYCLES` sets how often.
#[tokio::test]
async fn killed_under_load_again_and_again_it_keeps_every_batch_it_acknowledged() {
    let cycles: usize = std::env::var("PROXY_KILL_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let directory = configured(CONFIG);
    let host = Endpoint::Unix(directory.path().join("host"));
    let mut ledger = Ledger::new();
    let mut sealed = Vec::new();
    let (mut acknowledged, mut total) = (0, 0);
    for cycle in 0..cycles {
        let process = Process::start(directory.path());
        let (mut enclave, greeting) = hello(&host).await;
        let Reply::Welcome(welcome) = greeting else { panic!("{greeting:?}") };
        let durable = welcome.durable.map_or(0, |(_, durable)| durable.size);
        assert!(durable >= acknowledged, "cycle {cycle}: {acknowledged} acknowledged, {durable} there");
        // What was sealed and is not there is sent again; then new batches, eight under way, until the kill.
        sealed.retain(|batch: &transcode_confidential::protocol::host::Append| batch.after.size > durable);
        let mut again = sealed.clone().into_iter();
        let kill = tokio::time::sleep(Duration::from_micros(2_000 + (cycle as u64 * 7919) % 40_000));
        let mut process = Some(process);
        let load = async {
            let mut under_way = 0;
            loop {
                while under_way < 8 {
                    let batch = again.next().unwrap_or_else(|| {
                        let batch = ledger.batch_of(1 + cycle % 20, 200);
                        sealed.push(batch.clone());
                        batch
                    });
                    if !enclave.try_send(&Request::Append(batch)).await {
                        return;
                    }
                    under_way += 1;
                }
                match enclave.receive().await {
                    Some((_, Reply::Appended(durable))) => {
                        acknowledged = durable.size;
                        under_way -= 1;
                        total += 1;
                    }
                    None => return,
                    other => panic!("cycle {cycle}: {other:?}"),
                }
            }
        };
        let killer = async {
            kill.await;
            process.take().unwrap().child.kill().unwrap();
        };
        tokio::join!(load, killer);
    }
    let verdict = oracle::check(&oracle::read(&directory.path().join("log")), &ledger.public_key());
    assert!(verdict.durable.size >= acknowledged);
    println!("{cycles} kills, {total} batches acknowledged, {acknowledged} events, {} there", verdict.durable.size);
    assert!(total > cycles, "hardly anything was under way when the kills came");
}
