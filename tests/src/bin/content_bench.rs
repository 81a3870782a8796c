//! How fast content goes, each figure beside what it is held against, measured in the same run.
//!
//! ```text
//! cargo run --release -p testkit --bin content_bench -- --confidential target/release/confidential [--mib 1024] [--python PYTHON]
//! ```
//!
//! Figures are medians of alternating rounds. Programs that are not there (`age`, a Python with the Encryption SDK) are
//! left out, and that is said. With `CONFIDENTIAL_TARGETS` set a missed target is a failure.
//!
//! Files are encrypted by whole processes, which read the same cached file and write to `/dev/null`. The bare cipher is one
//! too: this program with `--bare` reads a frame, seals it where it lies, and writes it. The time of `confidential` includes
//! its start, the attestation, reading the log and the data key; so the file must be large for the ratio to say
//! anything of the cipher.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark prints, and fails loudly"
)]

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::aead;
use clap::Parser;
use client::EncryptRequest;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, ServerName},
};
use testkit::world::{OPERATOR, Plan, World, key_id};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use transcode_confidential::{message::EncryptionContext, protocol::api::IssueDataKeys};
use transport::Endpoint;

#[derive(Parser)]
struct Arguments {
    /// The command line that is measured
    #[arg(long, default_value = "target/release/confidential")]
    confidential: PathBuf,
    /// Only the bare cipher, over this file to standard output: how the table measures it
    #[arg(long)]
    bare: Option<PathBuf>,
    /// Frame length of the bare cipher
    #[arg(long, default_value_t = 65_536, requires = "bare")]
    frame_length: usize,
    /// Size of the file
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// Rounds of which the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A Python that has the AWS Encryption SDK
    #[arg(long)]
    python: Option<PathBuf>,
}

const MIB: usize = 1 << 20;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut targets = Targets::default();
    match &arguments.bare {
        Some(file) => bare(file, arguments.frame_length),
        None => tokio::runtime::Runtime::new().unwrap().block_on(table(&arguments, &mut targets)),
    }
    if targets.missed && std::env::var_os("CONFIDENTIAL_TARGETS").is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// What the figures are held against.
#[derive(Default)]
struct Targets {
    missed: bool,
}

impl Targets {
    fn judge(&mut self, what: &str, ratio: f64, target: f64) {
        println!("  {what}: {ratio:.2} (target {target})");
        self.missed |= ratio < target;
    }
}

async fn table(arguments: &Arguments, targets: &mut Targets) {
    let mut plan = Plan::default();
    plan.key_defaults.max_uses = 1 << 32;
    let mut world = World::without_enclave(plan).await;
    let echo = echo(&world, arguments).await;
    let image = world.image().clone();
    world.launch(&image).await.unwrap();
    world.operator().generate("content-key-1").await.unwrap();
    local(&world, arguments, targets);
    through(&world, arguments, echo, targets).await;
    issue(&world).await;
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// What is run on the file, one row of the table.
struct Row {
    name: String,
    command: Option<Command>,
    /// The bare cipher that it is held against, by its place in the table.
    bare: usize,
    rates: Vec<Rate>,
}

const FRAMES: [usize; 6] = [65_536, 16_384, 32_768, 131_072, 262_144, 1_048_576];

fn local(world: &World, arguments: &Arguments, targets: &mut Targets) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("content");
    let content: Vec<u8> = (0..MIB).map(|at| ((at * 31) >> 7) as u8).collect();
    let mut out = File::create(&file).unwrap();
    (0..arguments.mib).for_each(|_| out.write_all(&content).unwrap());
    // On disk, so that nobody writes it back while others are measured; and in memory.
    out.sync_all().unwrap();
    let empty = dir.path().join("empty");
    File::create(&empty).unwrap();
    std::fs::write(dir.path().join("root.pem"), world.hypervisor.root_pem()).unwrap();
    std::fs::write(dir.path().join("m.json"), world.image().measurements("bench").to_json()).unwrap();
    let identity = dir.path().join("me.pem");
    std::fs::write(&identity, world.ca.identity_pem(OPERATOR)).unwrap();
    std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o600)).unwrap();
    let at = |name: &str| dir.path().join(name).into_os_string();
    let confidential = |file: &Path, extra: &[&str]| {
        let mut command = Command::new(&arguments.confidential);
        command.args(["encrypt", "--local", "--key", "content-key-1", "--server", &world.server().to_string()]);
        command.arg("--root").arg(at("root.pem")).arg("--measurements").arg(at("m.json"));
        command.arg("--identity").arg(at("me.pem")).arg("--state").arg(at("state"));
        command.args(extra).arg(file).args(["-o", "-"]);
        command
    };
    let one_core = |command: Command| {
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", "0"]).arg(command.get_program()).args(command.get_args());
        pinned
    };
    let row = |name: &str, bare, command| Row { name: name.into(), command, bare, rates: Vec::new() };
    let mut rows = Vec::new();
    for frame in FRAMES {
        let (kib, length) = (frame >> 10, frame.to_string());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--bare").arg(&file).args(["--frame-length", &length]);
        let bare = rows.len();
        rows.push(row(&format!("bare cipher, one core, {kib} KiB"), bare, Some(one_core(command))));
        let extra = ["--threads", "1", "--frame-length", &length];
        let command = Some(one_core(confidential(&file, &extra)));
        rows.push(row(&format!("  --local, one core, {kib} KiB"), bare, command));
    }
    rows.push(row("--local, as it comes", 0, Some(confidential(&file, &[]))));
    let age = age_recipient().map(|recipient| {
        let mut command = Command::new("age");
        command.arg("-r").arg(recipient).arg(&file);
        command
    });
    rows.push(row("age", 0, age));
    let python = arguments.python.as_ref().map(|python| {
        let mut command = Command::new(python);
        command.arg("-c").arg(PYTHON).arg(&file);
        command
    });
    rows.push(row("AWS Encryption SDK for Python", 0, python));
    let mut starting = one_core(confidential(&empty, &["--threads", "1"]));
    let mut start = Vec::new();
    for round in 0..arguments.rounds {
        let begin = Instant::now();
        run(&mut starting);
        start.push(begin.elapsed().as_secs_f64());
        for Row { name, command, rates, .. } in &mut rows {
            // One round of what takes minutes is enough.
            let Some(command) = command.as_mut().filter(|_| !name.contains("Python") || round == 0) else { continue };
            let begin = (Instant::now(), cpu_of_children());
            run(command);
            let megabytes = (arguments.mib * MIB) as f64 / 1e6;
            let (wall, core) = (begin.0.elapsed().as_secs_f64(), cpu_of_children() - begin.1);
            rates.push(Rate { wall: megabytes / wall, core: megabytes / core });
        }
    }
    println!(
        "a cached file of {} MiB, output to /dev/null, whole processes: MB/s (ratio to the bare cipher); MB for each \
         second of a core (ratio)",
        arguments.mib
    );
    let bares: Vec<Rate> = rows.iter().map(|row| middle(&rows[row.bare].rates)).collect();
    for (Row { name, command, rates, .. }, bare) in rows.iter().zip(bares) {
        if command.is_none() {
            println!("{name:36} not here");
            continue;
        }
        let Rate { wall, core } = middle(rates);
        println!("{name:36} {wall:7.0} ({:.2})  {core:7.0} ({:.2})", wall / bare.wall, core / bare.core);
    }
    let rate =
        |name: &str| rows.iter().find(|row| row.name == name && !row.rates.is_empty()).map(|row| middle(&row.rates));
    if let (Some(ours), Some(bare)) = (rate("  --local, one core, 64 KiB"), rate("bare cipher, one core, 64 KiB")) {
        targets.judge("--local to the bare cipher, one core, 64 KiB", ours.core / bare.core, 0.7);
        for other in ["age", "AWS Encryption SDK for Python"] {
            if let Some(theirs) = rate(other) {
                targets.judge(&format!("--local to {other}"), ours.core / theirs.core, 1.0);
            }
        }
    }
    println!(
        "of which start, attestation, the log and the data key, before the first byte: {:.0} ms",
        median(start) * 1e3
    );
}

fn run(command: &mut Command) {
    let status = command.stdout(File::create("/dev/null").unwrap()).stderr(Stdio::inherit()).status();
    assert!(status.expect("it runs").success(), "{command:?}");
}

const PYTHON: &str = r#"
import sys, os
import aws_encryption_sdk
from aws_encryption_sdk.identifiers import AlgorithmSuite, EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.key_providers.raw import RawMasterKey, WrappingKey
wrapping = WrappingKey(WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING, os.urandom(32), EncryptionKeyType.SYMMETRIC)
key = RawMasterKey(provider_id="bench", key_id=b"bench", wrapping_key=wrapping)
client = aws_encryption_sdk.EncryptionSDKClient()
with open(sys.argv[1], "rb") as source, client.stream(mode="e", source=source, key_provider=key, frame_length=65536,
        algorithm=AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY) as stream:
    for piece in stream:
        sys.stdout.buffer.write(piece)
"#;

/// The file, frame by frame, into one buffer, sealed where it lies, and written: what nobody can do without.
fn bare(file: &Path, frame_length: usize) {
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &[7; 32]).unwrap());
    let mut input = File::open(file).unwrap();
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned().unwrap());
    let (mut frame, mut number) = (vec![0; frame_length + 16], 0u64);
    loop {
        let mut filled = 0;
        while filled < frame_length {
            match input.read(&mut frame[filled..frame_length]).unwrap() {
                0 => break,
                length => filled += length,
            }
        }
        if filled == 0 {
            return;
        }
        number += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        let (nonce, aad) = (aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from([0; 78]));
        let tag = key.seal_in_place_separate_tag(nonce, aad, &mut frame[..filled]).unwrap();
        frame[filled..filled + 16].copy_from_slice(tag.as_ref());
        output.write_all(&frame[..filled + 16]).unwrap();
    }
}

fn age_recipient() -> Option<String> {
    let made = Command::new("age-keygen").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(made.stdout).ok()?;
    text.lines().find_map(|line| line.strip_prefix("# public key: ")).map(str::to_owned)
}

/// Seconds of all cores that this process has used.
fn cpu() -> f64 {
    // Fields 14 and 15 of proc(5).
    cpu_fields([11, 12])
}

/// Seconds of all cores that the programs used which this process started and waited for.
fn cpu_of_children() -> f64 {
    // Fields 16 and 17 of proc(5).
    cpu_fields([13, 14])
}

fn cpu_fields(of: [usize; 2]) -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // In ticks of 10 ms.
    of.map(|at| fields[at].parse::<f64>().unwrap()).iter().sum::<f64>() / 100.0
}

/// MB/s, and MB for each second of a core, of everything: both ends and the relay.
#[derive(Clone, Copy)]
struct Rate {
    wall: f64,
    core: f64,
}

fn rate(bytes: usize, begin: (Instant, f64)) -> Rate {
    let megabytes = bytes as f64 / 1e6;
    Rate { wall: megabytes / begin.0.elapsed().as_secs_f64(), core: megabytes / (cpu() - begin.1) }
}

fn middle(rates: &[Rate]) -> Rate {
    let of = |pick: fn(&Rate) -> f64| median(rates.iter().map(pick).collect());
    Rate { wall: of(|rate| rate.wall), core: of(|rate| rate.core) }
}

/// TLS 1.3 with the same cipher, through the same relay: everything that comes goes back.
async fn echo(world: &World, arguments: &Arguments) -> Rate {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["echo".into()]).unwrap().self_signed(&key).unwrap();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let tls13: &[_] = &[&rustls::version::TLS13];
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(tls13).unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(tls13).unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let Endpoint::Unix(path) = &world.config().parent.listen else { unreachable!("a world listens on unix sockets") };
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let (mut reader, mut writer) = tokio::io::split(stream);
                let mut buffer = vec![0; 65_536];
                while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                    // Unflushed, the end of it would wait in the session for a write that never comes.
                    if writer.write_all(&buffer[..length]).await.is_err() || writer.flush().await.is_err() {
                        return;
                    }
                }
                let _ = writer.shutdown().await;
            });
        }
    });
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let mut rates = Vec::new();
    for _ in 0..arguments.rounds {
        let stream = world.server().connect(Duration::from_secs(10)).await.unwrap();
        let stream = connector.connect(ServerName::try_from("echo").unwrap(), stream).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let begin = (Instant::now(), cpu());
        let total = arguments.mib * MIB;
        let sending = tokio::spawn(async move {
            let piece = vec![7; 65_536];
            for _ in 0..total / piece.len() {
                writer.write_all(&piece).await.unwrap();
            }
            writer.flush().await.unwrap();
            writer
        });
        let (mut buffer, mut left) = (vec![0; 65_536], total);
        while left > 0 {
            left -= reader.read(&mut buffer).await.unwrap();
        }
        rates.push(rate(total, begin));
        drop(sending.await.unwrap());
    }
    serving.abort();
    let _ = serving.await;
    std::fs::remove_file(path).unwrap();
    middle(&rates)
}

async fn through(world: &World, arguments: &Arguments, echo: Rate, targets: &mut Targets) {
    let caller = world.operator();
    let request = EncryptRequest { key: key_id("content-key-1"), context: EncryptionContext::new(), content_id: None };
    let total = arguments.mib * MIB;
    let (mut sealing, mut opening) = (Vec::new(), Vec::new());
    let small = caller.encrypt("content-key-1", &vec![7; 64 * MIB]).await.unwrap();
    for _ in 0..arguments.rounds {
        let begin = (Instant::now(), cpu());
        let input = tokio::io::repeat(7).take(total as u64);
        caller.client.encrypt(&request, input, &mut tokio::io::sink()).await.unwrap();
        sealing.push(rate(total, begin));
        let begin = (Instant::now(), cpu());
        let input = io::Cursor::new(small.clone());
        caller.client.decrypt(&Default::default(), input, &mut tokio::io::sink()).await.unwrap();
        opening.push(rate(64 * MIB, begin));
    }
    println!(
        "\nthrough relay and enclave, both ends on this machine: MB/s (ratio); MB for each second of a core (ratio)"
    );
    println!("{:36} {:7.0}         {:7.0}", "bare TLS echo, same relay", echo.wall, echo.core);
    for (name, rates) in [("encrypt", sealing), ("decrypt", opening)] {
        let Rate { wall, core } = middle(&rates);
        println!("{name:36} {wall:7.0} ({:.2})  {core:7.0} ({:.2})", wall / echo.wall, core / echo.core);
        targets.judge(&format!("{name} to the echo, per core"), core / echo.core, 0.4);
    }
}

async fn issue(world: &World) {
    println!("\nissue-data-key with its durable event: clients, batch, p50 ms, p99 ms, keys/s");
    let caller = world.operator();
    for (clients, batch, requests) in [(1, 1, 300), (16, 1, 2000), (256, 1, 8000), (1, 256, 60), (16, 64, 300)] {
        let begin = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|_| {
                let client = caller.client.clone();
                tokio::spawn(async move {
                    let request = IssueDataKeys { count: Some(batch), ..IssueDataKeys::default() };
                    let mut times = Vec::new();
                    while times.len() < requests / clients {
                        let begin = Instant::now();
                        match client.issue_data_keys(&key_id("content-key-1"), &request).await {
                            Ok(issued) if issued.len() == batch as usize => times.push(begin.elapsed().as_secs_f64()),
                            Ok(_) => {}
                            Err(error) if error.retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.unwrap());
        }
        let seconds = begin.elapsed().as_secs_f64();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] * 1e3;
        let rate = (times.len() * batch as usize) as f64 / seconds;
        println!("{clients:4} {batch:4} {:8.2} {:8.2} {rate:10.0}", at(0.5), at(0.99));
    }
}
