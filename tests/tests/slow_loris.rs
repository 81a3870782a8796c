//! Ten thousand who connect and say little or nothing. A process of its own: it uses up what files a process may have open.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that fails should fail loudly, and says what it measured"
)]

use std::time::{Duration, Instant};

use testkit::world::World;
use tokio::{io::AsyncWriteExt as _, task::JoinSet};
use transport::{Endpoint, Stream};

/// More than proxy and enclave take at the same time.
const CROWD: usize = 10_000;
/// How long anybody waits who comes while the crowd is there.
const BOUND: Duration = Duration::from_secs(120);

/// Connects, says a little, and stays.
async fn linger(to: Endpoint, number: usize) -> Option<Stream> {
    let mut stream = to.connect(Duration::from_secs(300)).await.ok()?;
    // Nothing; the beginning of a handshake; the head of a record that never comes.
    let words: &[u8] = [&b""[..], &[0x16], &[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f]][number % 3];
    stream.write_all(words).await.ok()?;
    Some(stream)
}

/// Sockets count twice in one process, and the proxy's and the enclave's as well.
fn raise_file_limit(needed: u64) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).is_ok() && limit.maximum.is_none_or(|maximum| maximum >= needed)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_who_say_nothing_keep_nobody_waiting_for_long() {
    // The crowd's ends, and three for each connection that the proxy takes.
    assert!(raise_file_limit(19_000), "this machine allows too few open files");
    let world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let begun = Instant::now();
    let mut connecting = JoinSet::new();
    for number in 0..CROWD {
        connecting.spawn(linger(world.server(), number));
    }
    // Some of the crowd wait in the backlog until others have been sent away.
    let mut crowd = Vec::new();
    while crowd.len() < CROWD / 2 {
        crowd.extend(connecting.join_next().await.unwrap().unwrap());
    }
    let there = begun.elapsed();
    let (begun, newcomer) = (Instant::now(), world.operator());
    let message = loop {
        match newcomer.encrypt("content-key-1", b"frame").await {
            Ok(message) => break message,
            Err(error) => assert!(error.retryable() && begun.elapsed() < BOUND, "{error}"),
        }
    };
    let (_, metrics) = world.admin("/metrics").await;
    let open = metrics.lines().find(|line| line.starts_with("transcode_proxy_relay_open ")).unwrap();
    println!(
        "{} of {CROWD} connected after {there:.1?}; who came then was served after {:.1?} ({open})",
        crowd.len(),
        begun.elapsed()
    );
    assert_eq!(newcomer.decrypt(&message).await.unwrap(), b"frame");
    // Who was connected before stays connected.
    assert_eq!(operator.decrypt(&message).await.unwrap(), b"frame");
    drop((crowd, connecting));
    world.check().intact();
}
