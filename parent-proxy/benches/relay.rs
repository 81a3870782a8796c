//! The relay against socat, and against no relay at all: throughput, time of an exchange, exchanges a second.
//!
//! `cargo bench -p parent-proxy --bench relay [-- --short]`. The relay and socat are processes of their own, TCP in and a unix socket out, with buffers of
//! 64 KiB; clients and server are this process. What is compared alternates, and the medians of rounds are compared, so a
//! slow or a busy machine changes both. Without socat (apt) that half is left out, and said so. With `CONFIDENTIAL_TARGETS`
//! set a missed target is a failure.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that cannot go on should fail loudly"
)]

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener},
    task::JoinSet,
};

const BUFFER: usize = 64 * 1024;
/// Bytes of one throughput run.
const BYTES: u64 = 512 << 20;
/// Bytes of a question and of an answer.
const MESSAGE: usize = 256;
/// How often everything is measured, and how long exchanges are counted.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    window: Duration,
}

const WHOLE: Effort = Effort { rounds: 7, window: Duration::from_millis(1500) };
const SHORT: Effort = Effort { rounds: 3, window: Duration::from_millis(500) };

/// A process that is ended with the bench.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A way from clients to the server.
struct Way {
    name: &'static str,
    address: SocketAddr,
    _process: Option<Process>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let effort = if std::env::args().any(|argument| argument == "--short") { SHORT } else { WHOLE };
    let Effort { rounds, window } = effort;
    let dir = tempfile::tempdir().unwrap();
    let server = dir.path().join("server");
    serve_unix(&server).await;
    let direct = Way { name: "direct", address: serve_tcp().await, _process: None };
    let relay = relay(dir.path(), &server).await;
    let socat = socat(&server).await;
    let mut missed = false;
    let mut judge = |what: &str, ratio: f64, target: f64| {
        println!("  {what}: {ratio:.2} (target {target})");
        missed |= ratio < target;
    };

    println!("throughput, one connection, {} MiB a run, MB/s, median of {rounds}", BYTES >> 20);
    let ways: Vec<&Way> = [Some(&relay), socat.as_ref(), Some(&direct)].into_iter().flatten().collect();
    let mut speeds = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for (way, speeds) in ways.iter().zip(&mut speeds) {
            speeds.push(throughput(way.address).await);
        }
    }
    for (way, speeds) in ways.iter().zip(&speeds) {
        println!("  {:8} {:8.0}", way.name, median(speeds));
    }
    if socat.is_some() {
        let ratios: Vec<f64> = speeds[0].iter().zip(&speeds[1]).map(|(ours, theirs)| ours / theirs).collect();
        judge("relay to socat", median(&ratios), 0.9);
    }

    println!("exchanges of {MESSAGE} bytes each way, median of {rounds} rounds of {window:?}");
    for clients in [1, 16, 256] {
        let mut rates = vec![Vec::new(); ways.len()];
        let mut slowest = vec![Vec::new(); ways.len()];
        for _ in 0..rounds {
            for (number, way) in ways.iter().enumerate() {
                let (rate, p99) = exchanges(way.address, clients, window).await;
                rates[number].push(rate);
                slowest[number].push(p99);
            }
        }
        for (number, way) in ways.iter().enumerate() {
            let (rate, p99) = (median(&rates[number]), median(&slowest[number]));
            println!("  {clients:4} clients  {:8} {rate:8.0}/s  p99 {:6.2} ms", way.name, 1000.0 * p99);
        }
        if clients == 256 && socat.is_some() {
            let ratios: Vec<f64> = slowest[1].iter().zip(&slowest[0]).map(|(theirs, ours)| theirs / ours).collect();
            judge("p99 of socat to ours at 256 connections", median(&ratios), 1.0);
        }
    }
    if socat.is_none() {
        println!("socat is not here: nothing was compared with it");
    }
    if missed && std::env::var_os("CONFIDENTIAL_TARGETS").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The first byte of a connection says what it is: a flood to count, or questions to answer.
async fn serve<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut stream: S) {
    let mut buffer = vec![0; BUFFER];
    match stream.read_u8().await {
        Ok(b'f') => {
            let mut left = BYTES;
            while left > 0 {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => left -= read as u64,
                }
            }
            let _ = stream.write_u8(b'!').await;
        }
        Ok(_) => {
            while stream.read_exact(&mut buffer[..MESSAGE]).await.is_ok() {
                if stream.write_all(&buffer[..MESSAGE]).await.is_err() {
                    return;
                }
            }
        }
        Err(_) => {}
    }
}

async fn serve_unix(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
}

async fn serve_tcp() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(stream));
        }
    });
    address
}

async fn relay(dir: &Path, server: &Path) -> Way {
    let port = free_port();
    let config = dir.join("proxy.toml");
    let text = format!(
        "enclave = \"unix:{}\"\n[relay]\nlisten = [\"tcp:127.0.0.1:{port}\"]\nmax_connections = 4096\n",
        server.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_parent-proxy"));
    command.arg("--config").arg(config).args(["--log", "warn"]);
    start("relay", command, port).await.expect("the proxy starts")
}

async fn socat(server: &Path) -> Option<Way> {
    let port = free_port();
    let mut command = Command::new("socat");
    command.args(["-b", &BUFFER.to_string()]);
    command.arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=1024,nodelay"));
    command.arg(format!("UNIX-CONNECT:{}", server.display()));
    start("socat", command, port).await
}

async fn start(name: &'static str, mut command: Command, port: u16) -> Option<Way> {
    let process = Process(command.stdin(Stdio::null()).spawn().ok()?);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).await.is_err() {
        assert!(Instant::now() < deadline, "{name} does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Some(Way { name, address, _process: Some(process) })
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Megabytes a second until the server has counted the last byte.
async fn throughput(address: SocketAddr) -> f64 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_u8(b'f').await.unwrap();
    let bytes = vec![7; BUFFER];
    let begin = Instant::now();
    for _ in 0..BYTES / BUFFER as u64 {
        stream.write_all(&bytes).await.unwrap();
    }
    assert_eq!(stream.read_u8().await.unwrap(), b'!');
    BYTES as f64 / 1e6 / begin.elapsed().as_secs_f64()
}

/// Exchanges a second of so many clients at once, and the time in seconds that 99 of 100 took at most.
async fn exchanges(address: SocketAddr, clients: usize, window: Duration) -> (f64, f64) {
    let mut streams = Vec::new();
    for _ in 0..clients {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_u8(b'q').await.unwrap();
        streams.push(stream);
    }
    let mut tasks = JoinSet::new();
    // Nobody counts before everybody is connected.
    let begin = Instant::now() + Duration::from_millis(200);
    for mut stream in streams {
        tasks.spawn(async move {
            let (question, mut answer) = ([7; MESSAGE], [0; MESSAGE]);
            let mut times = Vec::new();
            while begin.elapsed() < window {
                let asked = Instant::now();
                stream.write_all(&question).await.unwrap();
                stream.read_exact(&mut answer).await.unwrap();
                if asked >= begin {
                    times.push(asked.elapsed().as_secs_f64());
                }
            }
            times
        });
    }
    let mut times: Vec<f64> = tasks.join_all().await.concat();
    let took = begin.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    (times.len() as f64 / took, times[times.len() * 99 / 100])
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
