//! The enclave stays within its memory, whatever is asked of it: a process of its own under a limit of its own, and all that can
//! be made to hold memory at the same time.
//!
//! `MEMORY_CONNECTIONS` has another number of connections than a quarter of those that ship. The machine must be fast enough to fill
//! them all within the 15 s that a head may take, or the figures are lower than they could be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that fails should fail loudly, says what it measured, and may be told how large it is"
)]

use std::{path::Path, time::Duration};

use enclave_app::{
    config::Limits,
    service::{BODY_MEMORY, STREAM_MEMORY},
};
use testkit::world::{EnclaveProcess, OPERATOR, Plan, World};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};
use transcode_confidential::{
    entropy::OsEntropy,
    ids::KeyVersion,
    message::{EncryptionContext, Encryptor, FrameLength, WrappingKey},
    secret::KeyMaterial,
};
use transport::{Endpoint, Stream};

const MIB: u64 = 1 << 20;
/// What `docs/OPERATIONS.md` says: the program itself with its keys, and what a connection holds by itself.
const PROGRAM: u64 = 64 * MIB;
const CONNECTION: u64 = 80 * 1024;
/// What kernel and image take before it serves: 90 to 101 of 512 MiB in the boot test, and a 64th of every MiB more.
const SYSTEM: u64 = 128 * MIB;
/// Stacks, and what the allocator keeps to itself: it counts as data, and is not resident.
const UNUSED: u64 = 64 * MIB;
const FILM: &str = "content-key-1";

type Tls = tokio_rustls::client::TlsStream<Stream>;

/// What the limits come to.
fn budget(connections: u64) -> u64 {
    PROGRAM + connections * CONNECTION + (STREAM_MEMORY + BODY_MEMORY) as u64
}

struct Load {
    world: World,
    enclave: EnclaveProcess,
    server: Endpoint,
    connections: usize,
}

impl Load {
    /// Says what is resident.
    fn measured(&mut self, what: &str) {
        assert!(self.enclave.lives(), "{what}: the enclave has ended");
        let (now, peak) = self.enclave.resident();
        println!(
            "{:>6.1} MiB resident, {:>6.1} MiB at most: {what}",
            now as f64 / MIB as f64,
            peak as f64 / MIB as f64
        );
    }

    /// So many connections, each of which has sent `words` and stays.
    async fn crowd(&self, count: usize, identity: Option<&str>, words: &[u8]) -> Vec<Tls> {
        let (tls, mut connecting) = (self.world.raw_tls(identity), JoinSet::new());
        let mut crowd = Vec::new();
        for _ in 0..count {
            let (tls, server, words) = (tls.clone(), self.server.clone(), words.to_vec());
            connecting.spawn(async move {
                let mut stream = tls.connect(&server).await.ok()?;
                // Where nobody takes it all, what is on its way stays there.
                let _ = tokio::time::timeout(Duration::from_secs(15), stream.write_all(&words)).await;
                let _ = tokio::time::timeout(Duration::from_secs(1), stream.flush()).await;
                Some(stream)
            });
            if connecting.len() > 300 {
                crowd.extend(connecting.join_next().await.unwrap().unwrap());
            }
        }
        crowd.extend(connecting.join_all().await.into_iter().flatten());
        crowd
    }
}

/// Reads what has come of an answer.
async fn read_rest(stream: &mut Tls) {
    let mut rest = [0; 4096];
    while let Ok(Ok(1..)) = tokio::time::timeout(Duration::from_millis(2), stream.read(&mut rest)).await {}
}

/// The beginning of a handshake of almost 64 KiB, in records of 16 KiB.
fn long_hello() -> Vec<u8> {
    let message = [&[1, 0, 0xff, 0xff][..], &[0; 0xff00]].concat();
    let record = |part: &[u8]| [&[0x16, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
    message.chunks(16_384).flat_map(record).collect()
}

fn post(path: &str, length: usize, sent: usize) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), &vec![b' '; sent]].concat()
}

/// A message with the longest frames, which nobody but the enclave can decrypt.
fn long_frames(world: &World) -> Vec<u8> {
    let material = KeyMaterial::from_bytes(world.newest_key().try_into().unwrap());
    let id = FILM.parse().unwrap();
    let wrapping = WrappingKey { key_id: &id, version: KeyVersion(1), material: &material };
    let (context, mut message) = (EncryptionContext::new(), Vec::new());
    let mut encryptor = Encryptor::begin(&wrapping, &context, FrameLength::MAX, &OsEntropy, &mut message).unwrap();
    encryptor.push(&vec![7; 40 << 20], &mut message).unwrap();
    encryptor.finish(&mut message).unwrap();
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_of_it_the_enclave_stays_within_its_memory() {
    let connections: usize =
        std::env::var("MEMORY_CONNECTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1024);
    let budget = budget(connections as u64);
    println!("{connections} connections: a budget of {} MiB", budget / MIB);
    let mut plan = Plan::default();
    plan.limits.connections = connections;
    plan.limits.audit_wait_ms = 20_000;
    let world = World::without_enclave(plan).await;
    let enclave = world.enclave_process(Path::new(env!("CARGO_BIN_EXE_demo")), budget + UNUSED);
    let server = world.config().parent.listen.clone();
    let mut load = Load { world, enclave, server, connections };
    load.measured("it serves");

    let operator = load.world.operator();
    for number in 0..100 {
        operator.generate(&format!("content-key-{}", 100 - number)).await.unwrap();
    }
    load.measured("100 keys");
    let message = operator.encrypt(FILM, b"frame").await.unwrap();

    let hello = long_hello();
    let mut beginning = Vec::new();
    for _ in 0..load.connections {
        let mut stream = load.server.connect(Duration::from_secs(60)).await.unwrap();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.write_all(&hello)).await;
        beginning.push(stream);
    }
    load.measured("as many handshakes as there are connections, each of 64 KiB and without an end");
    drop(beginning);

    let named = load.connections * 7 / 8;
    let request = b"GET /v1/checkpoint HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut idle = load.crowd(named, Some(OPERATOR), request).await;
    for stream in &mut idle {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer[9..], b"200");
        read_rest(stream).await;
    }
    load.measured(&format!("{} known clients that have asked something", idle.len()));
    let head = format!("GET /v1/checkpoint HTTP/1.1\r\nhost: x\r\nx: {}", "y".repeat(60_000));
    for stream in &mut idle {
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.write_all(head.as_bytes())).await;
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.flush()).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    load.measured("the same, each with a head of 60 KB without an end");
    // The control: such a head is read, and its end is what it waits for.
    let mut control = load.crowd(1, Some(OPERATOR), head.as_bytes()).await.remove(0);
    control.write_all(b"\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    control.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer[9..], b"200");
    drop(idle);

    let body = post(&format!("/v1/keys/{FILM}/data-keys"), 250_000, 249_000);
    let bodies = load.crowd(400.min(named), Some(OPERATOR), &body).await;
    load.measured(&format!("{} bodies of 250 KB without an end", bodies.len()));
    drop(bodies);

    let long = long_frames(&load.world);
    for (path, what) in [("/v1/decrypt", "decrypted"), ("/v1/rewrap", "encrypted anew")] {
        let stream = post(path, long.len(), 0);
        let stream = [&stream[..], &long[..long.len() - 1]].concat();
        let streams = load.crowd(24, Some(OPERATOR), &stream).await;
        load.measured(&format!("{} messages with frames of 16 MiB being {what}", streams.len()));
        drop(streams);
    }
    let stream = post(&format!("/v1/keys/{FILM}/encrypt"), 1 << 30, 1 << 20);
    let streams = load.crowd(named.min(600), Some(OPERATOR), &stream).await;
    load.measured(&format!("{} streams being encrypted that nobody reads", streams.len()));
    drop(streams);

    // All gone: whoever comes is served, as whoever was there.
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    for caller in [operator, load.world.operator()] {
        loop {
            match caller.decrypt(&message).await {
                Ok(content) => break assert_eq!(content, b"frame"),
                Err(error) => assert!(error.retryable() && std::time::Instant::now() < deadline, "{error}"),
            }
        }
    }
    load.measured("afterwards");
    let (_, peak) = load.enclave.resident();
    println!("at most {} MiB of {} MiB", peak / MIB, budget / MIB);
    assert!(peak < budget);
    load.world.check().intact();
}

/// `NAME=VALUE` of a file of settings, or `${NAME:=VALUE}` of a script.
fn setting(text: &str, name: &str) -> u64 {
    let after = text.split_once(&format!("{name}=")).or_else(|| text.split_once(&format!("{name}:="))).unwrap().1;
    after.split(|next: char| !next.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn the_memory_that_the_samples_give_holds_what_the_limits_that_ship_come_to() {
    let needed = SYSTEM + budget(Limits::default().connections as u64);
    let env = include_str!("../../deploy/config/enclave.env");
    let run = include_str!("../../deploy/systemd/enclave-run");
    let given = setting(env, "MEMORY_MIB");
    println!("{} MiB are needed at most, {given} MiB given", needed.div_ceil(MIB));
    assert!(needed <= given * MIB, "{} MiB of {given} MiB", needed.div_ceil(MIB));
    assert_eq!(setting(run, "MEMORY_MIB"), given, "what the script takes without the file");
    let allocator = include_str!("../../deploy/config/allocator.yaml");
    let aside = allocator.split_once("memory_mib: ").unwrap().1.lines().next().unwrap();
    assert!(given <= aside.trim().parse().unwrap(), "{given} MiB of {aside} MiB that are set aside");
}
