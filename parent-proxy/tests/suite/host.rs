//! The host protocol over a socket: sessions, order, refusals.

use std::time::Duration;

use transcode_confidential::{
    audit::segment::SegmentName,
    cbor::Writer,
    protocol::{
        host::{Durable, HostError, Reply, Request, VERSION},
        policy::{Policy, SignedPolicy},
    },
    secret::KeyMaterial,
    signature::SigningKey,
    time::Timestamp,
};

use crate::{
    enclave::{Connection, LOG, Ledger, edit},
    oracle,
    world::World,
};

const CONFIG: &str = r#"
[host]
listen = "unix:$DIR/host"
session_timeout = "2s"
[store]
directory = "$DIR/log"
reserve = 0
"#;

fn welcome(reply: &Reply) -> Option<Durable> {
    match reply {
        Reply::Welcome(welcome) => {
            assert_eq!(welcome.version, VERSION);
            assert!(welcome.parent.starts_with("parent-proxy "));
            welcome.durable.map(|(log, durable)| {
                assert_eq!(log, LOG);
                durable
            })
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_appends_lists_reads_and_proves() {
    let world = World::start(CONFIG).await;
    let (mut enclave, hello) = Connection::hello(&world.host(), 1).await;
    assert_eq!(welcome(&hello), None);
    let mut ledger = Ledger::new();
    let batch = ledger.batch(5);
    assert_eq!(enclave.call(&Request::Append(batch.clone())).await, Reply::Appended(batch.after));
    let Reply::Segments(segments) = enclave.call(&Request::Segments { after: None }).await else { panic!("segments") };
    assert_eq!(segments.len(), 1);
    let name = segments[0].name;
    let Reply::Bytes(bytes) = enclave.call(&Request::Read { name, offset: 0, length: 200_000 }).await else {
        panic!("bytes")
    };
    assert_eq!(bytes.len() as u64, segments[0].length);
    assert!(
        matches!(enclave.call(&Request::Inclusion { index: 2, size: 5 }).await, Reply::Proof(path) if path.len() == 3)
    );
    assert!(matches!(enclave.call(&Request::Consistency { old: 2, new: 5 }).await, Reply::Proof(_)));
    assert_eq!(enclave.call(&Request::Ping).await, Reply::Done);
    assert_eq!(enclave.call(&Request::Quarantine { name, offset: bytes.len() as u64 }).await, Reply::Done);
    assert_eq!(enclave.call(&Request::Credentials).await, Reply::Failed(HostError::NoCredentials));
    assert_eq!(enclave.call(&Request::Policy { after: 0 }).await, Reply::Policy(None));
    let missing = SegmentName { first: name.first, epoch: transcode_confidential::ids::Epoch(77) };
    let read = Request::Read { name: missing, offset: 0, length: 1 };
    assert_eq!(enclave.call(&read).await, Reply::Failed(HostError::NotFound));
}

#[tokio::test]
async fn many_batches_under_way_are_answered_in_their_order_and_are_all_there() {
    let mut world = World::start(CONFIG).await;
    let (mut enclave, _) = Connection::hello(&world.host(), 1).await;
    let mut ledger = Ledger::new();
    let mut expected = Vec::new();
    for round in 0..10 {
        let mut sent = Vec::new();
        for _ in 0..50 {
            let batch = ledger.batch(1 + round % 3);
            sent.push((enclave.send(&Request::Append(batch.clone())).await, Reply::Appended(batch.after)));
        }
        for (id, reply) in sent {
            assert_eq!(enclave.receive().await, Some((id, reply)));
        }
        expected.push(ledger.chain.size());
    }
    world.stop().await;
    let verdict = oracle::check(&oracle::read(&world.path("log")), &ledger.public_key());
    assert_eq!(verdict.durable.size, ledger.chain.size());
}

#[tokio::test]
async fn a_second_session_is_fenced_while_the_first_lives_and_not_after() {
    let world = World::start(CONFIG).await;
    let (first, _) = Connection::hello(&world.host(), 1).await;
    let (mut second, hello) = Connection::hello(&world.host(), 2).await;
    assert_eq!(hello, Reply::Failed(HostError::Fenced));
    assert_eq!(second.receive().await, None, "and the connection is closed");
    assert_eq!(world.proxy().metrics().host_fenced_total.value(), 1);
    drop(first);
    let hello = loop {
        let (connection, hello) = Connection::hello(&world.host(), 2).await;
        if hello != Reply::Failed(HostError::Fenced) {
            break (connection, hello);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(welcome(&hello.1), None);
}

#[tokio::test]
async fn the_same_session_takes_over_after_everything_it_sent_before_is_stored() {
    let world = World::start(CONFIG).await;
    let mut ledger = Ledger::new();
    let (mut old, _) = Connection::hello(&world.host(), 1).await;
    let mut last = None;
    for _ in 0..30 {
        let batch = ledger.batch(2);
        old.send(&Request::Append(batch.clone())).await;
        last = Some(batch);
    }
    // At least the first of them is in: its answer has come.
    old.receive().await.unwrap();
    let (mut new, hello) = Connection::hello(&world.host(), 1).await;
    let durable = welcome(&hello).unwrap();
    // The old connection ends, whatever of its answers still came through.
    while old.receive().await.is_some() {}
    let mut again = Ledger::new();
    let mut resent = 0;
    while again.chain.size() < ledger.chain.size() {
        let batch = again.batch(2);
        if batch.after.size > durable.size {
            assert_eq!(new.call(&Request::Append(batch.clone())).await, Reply::Appended(batch.after));
            resent += 1;
        }
    }
    // The last one once more: it is there already, and said to be.
    let last = last.unwrap();
    assert_eq!(new.call(&Request::Append(last.clone())).await, Reply::Appended(last.after));
    assert_eq!(durable.size + 2 * resent, 60);
}

#[tokio::test]
async fn a_silent_session_dies_and_a_ping_keeps_it_alive() {
    let world = World::start(&CONFIG.replace("\"2s\"", "\"400ms\"")).await;
    let (mut enclave, _) = Connection::hello(&world.host(), 1).await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(enclave.call(&Request::Ping).await, Reply::Done);
    }
    let (_, hello) = Connection::hello(&world.host(), 2).await;
    assert_eq!(hello, Reply::Failed(HostError::Fenced));
    assert_eq!(enclave.receive().await, None, "closed after the time-out");
    let (_next, hello) = Connection::hello(&world.host(), 2).await;
    assert_eq!(welcome(&hello), None);
    assert_eq!(world.proxy().metrics().host_timed_out_total.value(), 1);
}

#[tokio::test]
async fn the_enclave_is_asked_to_stop_once_and_its_successor_is_not() {
    let world = World::start(CONFIG).await;
    assert!(!world.proxy().stop_enclave(), "there is none");
    let (mut enclave, _) = Connection::hello(&world.host(), 1).await;
    assert_eq!(enclave.call(&Request::Ping).await, Reply::Done);
    assert!(world.proxy().stop_enclave());
    assert_eq!(enclave.call(&Request::Ping).await, Reply::Stop);
    assert_eq!(enclave.call(&Request::Ping).await, Reply::Done, "once");
    assert!(world.proxy().stop_enclave());
    drop(enclave);
    let mut next = loop {
        let (next, hello) = Connection::hello(&world.host(), 2).await;
        if hello != Reply::Failed(HostError::Fenced) {
            break next;
        }
    };
    assert_eq!(next.call(&Request::Ping).await, Reply::Done, "its successor lives");
}

#[tokio::test]
async fn whatever_is_malformed_or_out_of_place_closes_the_connection_and_is_counted() {
    let world = World::start(CONFIG).await;
    let hello = Request::Hello { version: VERSION, session: [1; 16] };
    let mut unknown = Writer::new();
    unknown.array(3).uint(1).uint(99).array(0);
    let mut count = 0;
    let mut closed = async |world: &World, connection: &mut Connection| {
        while connection.receive().await.is_some() {}
        count += 1;
        assert_eq!(world.proxy().metrics().host_malformed_total.value(), count);
    };
    for first in [&b""[..], b"\xff", unknown.as_slice(), &[hello.encode(1), vec![0]].concat()] {
        let mut connection = Connection::open(&world.host()).await;
        connection.send_raw(first).await;
        closed(&world, &mut connection).await;
    }
    let mut impatient = Connection::open(&world.host()).await;
    assert_eq!(impatient.call(&Request::Ping).await, Reply::Failed(HostError::Refused));
    closed(&world, &mut impatient).await;
    let mut newer = Connection::open(&world.host()).await;
    let later = Request::Hello { version: VERSION + 1, session: [1; 16] };
    assert_eq!(newer.call(&later).await, Reply::Failed(HostError::Version));
    closed(&world, &mut newer).await;
    for second in [hello.encode(9), b"\x00".to_vec()] {
        let (mut connection, _) = Connection::hello(&world.host(), 1).await;
        connection.send_raw(&second).await;
        closed(&world, &mut connection).await;
    }
    // The head of no frame.
    let mut raw = world.host().connect(Duration::from_secs(1)).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut raw, &[0xff; 12]).await.unwrap();
    assert_eq!(tokio::io::AsyncReadExt::read(&mut raw, &mut [0]).await.unwrap_or(0), 0);
    let (mut enclave, _) = Connection::hello(&world.host(), 5).await;
    assert_eq!(enclave.call(&Request::Ping).await, Reply::Done, "and the service goes on");
}

#[tokio::test]
async fn a_batch_out_of_order_is_refused_and_the_session_goes_on() {
    let world = World::start(CONFIG).await;
    let (mut enclave, _) = Connection::hello(&world.host(), 1).await;
    let mut ledger = Ledger::new();
    let (first, second) = (ledger.batch(1), ledger.batch(1));
    let mut unsealed = second.clone();
    edit(&mut unsealed, |records| drop(records.pop()));
    assert_eq!(enclave.call(&Request::Append(second.clone())).await, Reply::Failed(HostError::OutOfOrder));
    assert_eq!(enclave.call(&Request::Append(unsealed)).await, Reply::Failed(HostError::Refused));
    for batch in [first, second] {
        assert_eq!(enclave.call(&Request::Append(batch.clone())).await, Reply::Appended(batch.after));
    }
}

#[tokio::test]
async fn shutdown_answers_what_is_under_way_and_frees_the_store() {
    let mut world = World::start(CONFIG).await;
    let (mut enclave, _) = Connection::hello(&world.host(), 1).await;
    let mut ledger = Ledger::new();
    let batch = ledger.batch(3);
    let id = enclave.send(&Request::Append(batch.clone())).await;
    assert_eq!(enclave.receive().await, Some((id, Reply::Appended(batch.after))));
    world.restart(CONFIG).await;
    assert_eq!(enclave.receive().await, None);
    let (_, hello) = Connection::hello(&world.host(), 1).await;
    assert_eq!(welcome(&hello), Some(batch.after));
}

#[tokio::test]
async fn a_newer_policy_is_handed_over_and_a_reload_looks_elsewhere() {
    let config = format!("{CONFIG}[policy]\npath = \"$DIR/policy\"\n");
    let world = World::start(&config).await;
    let document = |version| {
        let key = SigningKey::from_seed(&KeyMaterial::from_bytes([8; 32])).unwrap();
        let (grants, denied) = (Vec::new(), Vec::new());
        let policy = Policy { deployment: "studio".into(), version, issued_at: Timestamp(1), grants, denied };
        SignedPolicy::sign(policy, &key).document().to_vec()
    };
    let (mut enclave, _) = Connection::hello(&world.host(), 1).await;
    assert_eq!(enclave.call(&Request::Policy { after: 0 }).await, Reply::Policy(None));
    std::fs::write(world.path("policy"), document(3)).unwrap();
    assert_eq!(enclave.call(&Request::Policy { after: 3 }).await, Reply::Policy(None));
    assert_eq!(enclave.call(&Request::Policy { after: 2 }).await, Reply::Policy(Some(document(3))));
    drop(enclave);
    std::fs::write(world.path("other"), document(4)).unwrap();
    let config = config.replace("$DIR/policy", "$DIR/other");
    assert!(world.proxy().reload(crate::world::parse(&config, world.directory.path())).is_empty());
    let (mut enclave, _) = Connection::hello(&world.host(), 1).await;
    assert_eq!(enclave.call(&Request::Policy { after: 3 }).await, Reply::Policy(Some(document(4))));
}
