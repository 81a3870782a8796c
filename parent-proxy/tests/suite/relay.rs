//! The relay, from the client's side of a running proxy.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
    task::JoinSet,
};
use transport::{Endpoint, Stream};

use crate::{
    enclave::SOON,
    world::{World, echo, parse, served, unix},
};

const CONFIG: &str = r#"
[relay]
listen = ["tcp:127.0.0.1:0", "unix:$DIR/relay"]
"#;

async fn ask(endpoint: &Endpoint, question: &[u8]) -> Vec<u8> {
    let mut client = endpoint.connect(SOON).await.unwrap();
    let mut answer = Vec::new();
    let (mut reader, mut writer) = tokio::io::split(&mut client);
    let send = async {
        writer.write_all(question).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (_, received) = tokio::join!(send, reader.read_to_end(&mut answer));
    received.unwrap();
    answer
}

#[tokio::test]
async fn every_listener_leads_to_the_enclave_and_a_half_close_is_kept() {
    let world = World::start(CONFIG).await;
    echo(&unix(world.path("enclave"))).await;
    let question: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_be_bytes).collect();
    for endpoint in &world.proxy().addresses().relay {
        assert!(ask(endpoint, &question).await == question);
    }
    let metrics = world.proxy().metrics();
    assert_eq!(metrics.relay_in_bytes_total.value(), 8_000_000);
    assert_eq!(metrics.relay_out_bytes_total.value(), 8_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_at_once_are_served() {
    const CLIENTS: usize = 2000;
    let world = World::start(CONFIG).await;
    echo(&unix(world.path("enclave"))).await;
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let endpoint = world.proxy().addresses().relay[number % 2].clone();
        clients.spawn(async move {
            let mut stream = endpoint.connect(SOON).await.unwrap();
            let question = [number as u8; 2000];
            stream.write_all(&question).await.unwrap();
            let mut answer = [0; 2000];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, question);
            stream
        });
    }
    let mut streams = clients.join_all().await;
    assert_eq!(world.proxy().metrics().relay_open.value(), CLIENTS as u64, "all of them at the same time");
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&[number as u8]).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), number as u8);
    }
    let took = start.elapsed();
    println!("{CLIENTS} connections at once, two exchanges each: {took:?}");
}

/// A virtual machine monitor as vhost-device-vsock is one: `CONNECT`, and the end of one direction is the end of both.
async fn monitor(path: std::path::PathBuf, port: u32, inside: Endpoint) {
    let listener = UnixListener::bind(path).unwrap();
    loop {
        let (mut outside, _) = listener.accept().await.unwrap();
        let inside = inside.clone();
        tokio::spawn(async move {
            let expected = format!("CONNECT {port}\n");
            let mut line = vec![0; expected.len()];
            outside.read_exact(&mut line).await.unwrap();
            assert_eq!(line, expected.as_bytes());
            let mut inside = inside.connect(SOON).await.unwrap();
            outside.write_all(b"OK 1024\n").await.unwrap();
            let (mut from_outside, mut to_outside) = outside.split();
            let (mut from_inside, mut to_inside) = tokio::io::split(&mut inside);
            tokio::select! {
                _ = tokio::io::copy(&mut from_outside, &mut to_inside) => {}
                _ = tokio::io::copy(&mut from_inside, &mut to_outside) => {}
            }
        });
    }
}

#[tokio::test]
async fn behind_a_monitor_that_keeps_no_half_close_the_answer_still_arrives() {
    let world = World::start(CONFIG).await;
    // An enclave that answers a fixed number of bytes after a pause, and then closes.
    let inside = served(&unix(world.path("inside")), |mut stream: Stream| async move {
        let mut question = vec![0; 300_000];
        stream.read_exact(&mut question).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        question.reverse();
        stream.write_all(&question).await.unwrap();
    })
    .await;
    tokio::spawn(monitor(world.path("vm"), 5000, inside));
    let hybrid = format!("unix:{}:5000", world.path("vm").display());
    let mut config = parse(CONFIG, world.directory.path());
    config.enclave = hybrid.parse().unwrap();
    assert!(world.proxy().reload(config).is_empty());

    let question: Vec<u8> = (0..300_000_u32).map(|at| at as u8).collect();
    let mut expected = question.clone();
    expected.reverse();
    for endpoint in &world.proxy().addresses().relay {
        assert!(ask(endpoint, &question).await == expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_monitor_content_of_any_size_goes_both_ways_at_once_and_loses_no_byte() {
    const LENGTH: usize = 12_000_000;
    let world = World::start(CONFIG).await;
    // Takes nothing while what it says is not taken: whoever does not read while it writes is stuck with it.
    let inside = served(&unix(world.path("inside")), |mut stream: Stream| async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    })
    .await;
    tokio::spawn(monitor(world.path("vm"), 5000, inside));
    let mut config = parse(CONFIG, world.directory.path());
    config.enclave = format!("unix:{}:5000", world.path("vm").display()).parse().unwrap();
    assert!(world.proxy().reload(config).is_empty());
    let question: std::sync::Arc<Vec<u8>> =
        (0..LENGTH).map(|at| (at % 251) as u8 ^ (at >> 16) as u8).collect::<Vec<_>>().into();
    let mut clients = JoinSet::new();
    for number in 0..4 {
        let (endpoint, question) = (world.proxy().addresses().relay[number % 2].clone(), question.clone());
        clients.spawn(async move {
            let mut client = endpoint.connect(SOON).await.unwrap();
            let (mut reader, mut writer) = tokio::io::split(&mut client);
            let mut answer = vec![0; LENGTH];
            // No half-close: the end is known by the length, as TLS and HTTP inside know it.
            let (sent, received) = tokio::join!(writer.write_all(&question), reader.read_exact(&mut answer));
            sent.unwrap();
            received.unwrap();
            assert!(answer == **question);
        });
    }
    clients.join_all().await;
}

/// A monitor whose guest is still booting keeps each caller for a while and then closes, as vhost-device-vsock does.
#[tokio::test]
async fn while_the_enclave_boots_no_caller_waits_behind_another() {
    const CALLERS: usize = 12;
    // The proxy itself is in no hurry.
    let patient = format!("{CONFIG}connect_timeout = \"10m\"\n");
    let world = World::start(&patient).await;
    let listener = UnixListener::bind(world.path("vm")).unwrap();
    let booting = tokio::spawn(async move {
        let mut kept = Vec::new();
        while kept.len() < CALLERS {
            kept.push(listener.accept().await.unwrap());
        }
    });
    let mut config = parse(&patient, world.directory.path());
    config.enclave = format!("unix:{}:5000", world.path("vm").display()).parse().unwrap();
    world.proxy().reload(config);
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let endpoint = world.relay();
        callers.spawn(async move {
            let mut client = endpoint.connect(SOON).await.unwrap();
            assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0, "closed, so that the caller may try again");
        });
    }
    // The monitor lets the first go when all of them have come to it.
    tokio::time::timeout(SOON, callers.join_all()).await.expect("one after the other");
    assert_eq!(world.proxy().metrics().relay_unreachable_total.value(), CALLERS as u64);
    // The guest listens: the next caller gets through, without any change here.
    booting.await.unwrap();
    std::fs::remove_file(world.path("vm")).unwrap();
    let inside = echo(&unix(world.path("inside"))).await;
    tokio::spawn(monitor(world.path("vm"), 5000, inside));
    let deadline = Instant::now() + SOON;
    loop {
        let mut client = world.relay().connect(SOON).await.unwrap();
        client.write_all(b"?").await.unwrap();
        if client.read_u8().await.is_ok_and(|byte| byte == b'?') {
            break;
        }
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_enclave_that_does_not_accept_in_time_costs_the_client_the_timeout() {
    let world = World::start(&format!("{CONFIG}connect_timeout = \"300ms\"\n")).await;
    // Accepts, and never answers CONNECT.
    let _silent = UnixListener::bind(world.path("vm")).unwrap();
    let mut config = parse(&format!("{CONFIG}connect_timeout = \"300ms\"\n"), world.directory.path());
    config.enclave = format!("unix:{}:5000", world.path("vm").display()).parse().unwrap();
    world.proxy().reload(config);
    let start = Instant::now();
    let mut client = world.relay().connect(SOON).await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    assert!(start.elapsed() >= Duration::from_millis(300), "it is waited for");
    assert_eq!(world.proxy().metrics().relay_unreachable_total.value(), 1);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up_and_disturbs_nobody() {
    let world = World::start(&format!("{CONFIG}stall_timeout = \"500ms\"\n")).await;
    served(&unix(world.path("enclave")), |mut stream: Stream| async move {
        match stream.read_u8().await {
            // A flood, or one byte.
            Ok(b'f') => while stream.write_all(&[0; 65536]).await.is_ok() {},
            _ => drop(stream.write_all(b"!").await),
        }
    })
    .await;
    let mut slow = world.relay().connect(SOON).await.unwrap();
    slow.write_all(b"f").await.unwrap();
    let start = Instant::now();
    while world.proxy().metrics().relay_timed_out_total.value() == 0 {
        assert_eq!(ask(&world.relay(), b"x").await, b"!");
        assert!(start.elapsed() < SOON, "it is never given up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
}

#[tokio::test]
async fn limits_hold_for_all_and_for_one_address_and_a_reload_changes_them() {
    let limited = format!("{CONFIG}max_connections = 3\nmax_per_client = 2\n");
    let world = World::start(&limited).await;
    echo(&unix(world.path("enclave"))).await;
    let [tcp, unix] = &world.proxy().addresses().relay[..] else { panic!("two listeners") };
    let talk = async |stream: &mut Stream| stream.write_all(b"?").await.is_ok() && stream.read_u8().await.is_ok();
    let mut first = tcp.connect(SOON).await.unwrap();
    let mut second = tcp.connect(SOON).await.unwrap();
    assert!(talk(&mut first).await && talk(&mut second).await);
    let mut too_many = tcp.connect(SOON).await.unwrap();
    assert!(!talk(&mut too_many).await, "one address has its share");
    assert_eq!(world.proxy().metrics().relay_refused_total.value(), 1);
    let mut third = unix.connect(SOON).await.unwrap();
    assert!(talk(&mut third).await);
    let mut waits = unix.connect(SOON).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(300), talk(&mut waits)).await;
    assert!(waiting.is_err(), "the fourth waits for a slot");
    let raised = limited.replace("max_connections = 3", "max_connections = 10").replace("max_per_client = 2\n", "");
    assert!(world.proxy().reload(parse(&raised, world.directory.path())).is_empty());
    assert_eq!(waits.read_u8().await.unwrap(), b'?', "and gets one");
    let mut another = tcp.connect(SOON).await.unwrap();
    assert!(talk(&mut another).await);
}

#[tokio::test]
async fn shutdown_lets_a_transfer_finish_and_cuts_off_what_lasts_too_long() {
    let mut world = World::start(CONFIG).await;
    echo(&unix(world.path("enclave"))).await;
    let (relay, shutdown) = (world.relay(), world.shutdown.clone());
    let mut quick = relay.connect(SOON).await.unwrap();
    let mut stays = relay.connect(SOON).await.unwrap();
    for stream in [&mut quick, &mut stays] {
        stream.write_all(b"?").await.unwrap();
        stream.read_u8().await.unwrap();
    }
    shutdown.cancel();
    quick.write_all(b"last words").await.unwrap();
    quick.shutdown().await.unwrap();
    let mut answer = Vec::new();
    quick.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"last words");
    let drained = world.proxy.take().unwrap().drained().await;
    assert_eq!((drained.accepted, drained.aborted), (2, 1));
    assert_eq!(stays.read(&mut [0]).await.unwrap_or(0), 0);
    assert!(relay.connect(SOON).await.is_err());
}
