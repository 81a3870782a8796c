//! The log, read through the service: live, proven, and without a gap.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use client::{ClientError, LogReader, log_memory::LogError};
use serde_json::{Value, json};
use testkit::{
    segments,
    world::{Plan, World, people::grant},
};
use transcode_confidential::{
    audit::{AuditEvent, AuditEventType, segment::RecordKind},
    ids::Sequence,
    protocol::{api::ErrorCode, policy::Operation},
};

use crate::answers::code;

/// Some events of two epochs: keys, uses, refusals.
async fn written() -> World {
    let mut world = World::start().await;
    write_some(&world).await;
    world.restart_enclave().await;
    write_some_more(&world).await;
    world
}

async fn write_some(world: &World) {
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    for _ in 0..5 {
        operator.encrypt("content-key-1", b"frame").await.unwrap();
    }
}

async fn write_some_more(world: &World) {
    let operator = world.operator();
    operator.rotate("content-key-1").await.unwrap();
    operator.encrypt("content-key-1", b"frame").await.unwrap();
    world.transcoder().generate("content-key-2").await.unwrap_err();
}

/// Everything up to the checkpoint that the reader's client was shown.
async fn read_all(reader: &mut LogReader, size: u64) -> Result<Vec<AuditEvent>, ClientError> {
    let mut events = Vec::new();
    while reader.position().0 < size {
        let page = reader.next(Duration::ZERO).await?;
        events.extend(page.events.into_iter().map(|(event, _)| event));
    }
    Ok(events)
}

#[tokio::test]
async fn the_events_of_every_epoch_come_from_any_place_on_and_are_those_on_disk() {
    let world = written().await;
    let operator = world.operator();
    let size = operator.client.log().await.unwrap().checkpoint().state().size;
    let stored = world.check_until(|checked| checked.events.len() as u64 >= size).await.events;
    for from in 0..=size {
        let mut reader = operator.client.read_log(Sequence(from));
        let events = read_all(&mut reader, size).await.unwrap();
        assert!(events.len() as u64 >= size - from);
        assert_eq!(events[..], stored[from as usize..from as usize + events.len()], "from {from}");
    }
    let beyond = operator.client.read_log(Sequence(size + 1000)).next(Duration::ZERO).await.unwrap_err();
    assert!(matches!(beyond, ClientError::Log(LogError::NoSuchEvent { .. })), "{beyond}");
}

#[tokio::test]
async fn without_the_grant_to_read_the_audit_log_nothing_of_it_is_told() {
    let mut world = World::start().await;
    let refused = world.transcoder().client.read_log(Sequence(0)).next(Duration::ZERO).await;
    assert_eq!(code(refused), ErrorCode::Denied);
    world.change_policy(|policy| policy.grants.push(grant("auditor", "", &[Operation::ReadAudit]))).await;
    assert!(
        !world.caller("auditor").client.read_log(Sequence(0)).next(Duration::ZERO).await.unwrap().events.is_empty()
    );
    // A grant for some keys is none for the log of all.
    world.change_policy(|policy| policy.grants.push(grant("half", "content-", &[Operation::ReadAudit]))).await;
    let refused = world.caller("half").client.read_log(Sequence(0)).next(Duration::ZERO).await;
    assert_eq!(code(refused), ErrorCode::Denied);
}

#[tokio::test]
async fn no_wrapped_key_and_no_document_leaves_with_the_events() {
    let world = written().await;
    let operator = world.operator();
    let mut told = Vec::new();
    let mut reader = operator.client.read_log(Sequence(0));
    let size = operator.client.log().await.unwrap().checkpoint().state().size;
    while reader.position().0 < size {
        for (_, leaf) in reader.next(Duration::ZERO).await.unwrap().events {
            told.extend(leaf);
        }
    }
    let all = world.segments();
    let beside = all.values().flat_map(|bytes| segments::records(bytes));
    let beside: Vec<_> = beside.filter(|(_, record)| record.kind == RecordKind::WrappedKey).collect();
    assert!(beside.len() >= 4, "log keys and content keys");
    for (_, record) in beside {
        let payload = &record.payload[16..48];
        assert!(!told.windows(payload.len()).any(|window| window == payload));
    }
}

#[tokio::test]
async fn news_come_as_they_are_durable_and_an_interruption_leaves_no_gap() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let mut reader = operator.client.read_log(Sequence(0));
    let mut seen = Vec::new();
    for round in 0..4 {
        match round {
            1 => {
                world.kill_proxy().await;
                world.start_proxy().await;
            }
            2 => world.restart_enclave().await,
            _ => {}
        }
        let caller = world.operator();
        let writing = tokio::spawn(async move {
            for _ in 0..3 {
                while caller.encrypt("content-key-1", b"frame").await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        writing.await.unwrap();
        let wanted = world.acknowledged.receipts().iter().map(|receipt| receipt.sequence.0).max().unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while reader.position().0 <= wanted {
            match reader.next(Duration::from_secs(1)).await {
                Ok(page) => seen.extend(page.events.into_iter().map(|(event, _)| event)),
                // The enclave or the proxy is away for a moment.
                Err(error) => assert!(error.retryable(), "{error}"),
            }
            assert!(tokio::time::Instant::now() < deadline, "it never comes");
        }
    }
    let stored = world.check_until(|checked| checked.events.len() >= seen.len()).await.events;
    assert_eq!(seen[..], stored[..seen.len()]);
    assert_eq!(seen.iter().filter(|event| event.event_type == AuditEventType::EnclaveCreated).count(), 2);
    let state = reader.state().unwrap();
    assert_eq!((state.size, state.last), (seen.len() as u64, seen.last().unwrap().hash));
}

#[tokio::test]
async fn what_is_not_durable_is_not_told() {
    let world = World::with(Plan::scripted()).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    world.check_until(|checked| !checked.of_type(AuditEventType::KeyGenerated).is_empty()).await;
    let mut reader = operator.client.read_log(Sequence(0));
    let size = operator.client.log().await.unwrap().checkpoint().state().size;
    read_all(&mut reader, size).await.unwrap();
    while !reader.next(Duration::ZERO).await.unwrap().events.is_empty() {}
    let before = reader.position();
    world.scripted().script(|script| script.appends = testkit::parent::Appends::Hold);
    let refused = operator.encrypt("content-key-1", b"frame").await;
    assert_eq!(code(refused), ErrorCode::AuditUnavailable);
    assert!(reader.next(Duration::from_secs(1)).await.unwrap().events.is_empty(), "sealed, and not durable");
    world.scripted().script(|script| script.appends = testkit::parent::Appends::Keep);
    let mut events = Vec::new();
    while events.is_empty() {
        events = reader.next(Duration::from_secs(5)).await.unwrap().events;
    }
    assert_eq!(events[0].0.sequence, before);
}

#[tokio::test]
#[allow(clippy::print_stdout, reason = "the number of cases is a result")]
async fn a_parent_that_changes_a_byte_of_what_it_hands_out_shows_nothing_to_anybody() {
    let world = World::with(Plan::scripted()).await;
    write_some(&world).await;
    let operator = world.operator();
    let size = operator.client.log().await.unwrap().checkpoint().state().size;
    let stored = world.check_until(|checked| checked.events.len() as u64 >= size).await.events;
    let good = world.segments();
    let (name, bytes) = good.iter().next().unwrap();
    let records = segments::records(bytes);
    let mut cases = 0;
    for (offset, record) in &records {
        if !matches!(record.kind, RecordKind::Entry | RecordKind::Seal) {
            continue;
        }
        for at in (0..record.payload.len()).step_by(9) {
            let mut payload = record.payload.clone();
            payload[at] ^= 1 << (at % 8);
            let mut changed = bytes[..*offset].to_vec();
            transcode_confidential::audit::segment::Record::new(record.kind, payload).write_to(&mut changed);
            changed.extend(&bytes[offset + record.disk_len()..]);
            world.scripted().edit(|segments| drop(segments.insert(*name, changed)));
            // One page holds all of it, and nothing vouches for that page.
            let told = operator.client.read_log(Sequence(0)).next(Duration::ZERO).await;
            assert!(told.is_err(), "{:?} at {offset}, byte {at}: {told:?}", record.kind);
            cases += 1;
        }
    }
    world.scripted().edit(|segments| *segments = good.clone());
    assert_eq!(read_all(&mut operator.client.read_log(Sequence(0)), size).await.unwrap()[..], stored[..size as usize]);
    println!("{cases} changed bytes in entries and seals, check sums mended: nothing shown");
}

#[tokio::test]
async fn readers_that_do_not_read_hold_nobody_back() {
    let world = written().await;
    // They ask, and never take the answer: each has a connection, and nothing else of the enclave.
    let mut stuck = Vec::new();
    for _ in 0..16 {
        let client = world.operator().client;
        stuck.push(tokio::spawn(async move {
            let mut reader = client.read_log(Sequence(0));
            let _ = reader.next(Duration::from_secs(5)).await;
            std::future::pending::<()>().await;
        }));
    }
    let operator = world.operator();
    for _ in 0..10 {
        operator.encrypt("content-key-1", b"frame").await.unwrap();
    }
    let mut reader = operator.client.read_log(Sequence(0));
    assert!(!reader.next(Duration::ZERO).await.unwrap().events.is_empty());
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The command line at this world's server, in a thread of its own.
struct Desk {
    base: Vec<std::ffi::OsString>,
    dir: std::path::PathBuf,
}

impl Desk {
    fn at(world: &World, identity: &str) -> Self {
        let dir = world.dir().join(format!("desk-{identity}"));
        std::fs::create_dir_all(&dir).unwrap();
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path.into_os_string()
        };
        let mut base: Vec<std::ffi::OsString> = vec!["confidential".into()];
        let server = world.server().to_string().into();
        base.extend(["--server".into(), server, "--state".into(), dir.join("state").into_os_string()]);
        base.extend(["--identity".into(), write("identity.pem", world.ca.identity_pem(identity))]);
        base.extend(["--root".into(), write("root.pem", world.hypervisor.root_pem())]);
        base.extend(["--measurements".into(), write("m.json", world.image().measurements("now").to_json())]);
        Self { base, dir }
    }

    fn args(&self, args: &[&str]) -> Vec<std::ffi::OsString> {
        let place = |arg: &&str| match arg.strip_prefix('@') {
            Some(name) => self.dir.join(name).into_os_string(),
            None => arg.into(),
        };
        self.base.iter().cloned().chain(args.iter().map(place)).collect()
    }

    async fn run(&self, args: &[&str]) -> (u8, String, String) {
        let args = self.args(args);
        let ran = tokio::task::spawn_blocking(move || {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let exit = client::cli::run_with(args, &mut out, &mut err);
            (exit.code(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
        });
        ran.await.unwrap()
    }

    async fn json(&self, code: u8, args: &[&str]) -> Value {
        let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
        let (exit, out, err) = self.run(&args).await;
        assert_eq!(exit, code, "{args:?}: {out}{err}");
        serde_json::from_str(&out).unwrap()
    }
}

#[tokio::test]
async fn the_command_line_queries_the_live_log_as_it_queries_a_stored_one() {
    let world = written().await;
    let desk = Desk::at(&world, "operator");
    let size = desk.json(0, &["audit", "checkpoint"]).await["state"]["size"].as_u64().unwrap();
    world.check_until(|checked| checked.events.len() as u64 >= size).await;
    let stored = world.segments_dir();
    let stored = stored.to_str().unwrap();
    let queries: &[&[&str]] = &[
        &[],
        &["--type", "KeyUsed"],
        &["--severity", "warning"],
        &["--key", "content-key-1"],
        &["--principal", "operator"],
        &["--epoch", "2"],
        &["--text", "REFUSED"],
        &["--after", "4"],
        &["--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00Z"],
        &["--last", "--limit", "3"],
    ];
    for query in queries {
        let list = |dir: &[&'static str]| [&["audit", "list"], dir, query].concat();
        // The log may have grown since; what was there is the same.
        let live = desk.json(0, &list(&[])).await;
        let args = [&["audit", "list", stored][..], query].concat();
        let offline = desk.json(0, &args).await;
        assert_eq!((&live["verified"], &live["source"]), (&json!(true), &json!("server")));
        assert_eq!(live["log_id"], offline["log_id"]);
        assert_eq!(live["events"], offline["events"], "{query:?}");
    }
    let live = desk.json(0, &["audit", "show", "3"]).await;
    assert_eq!(live["event"]["leaf"], desk.json(0, &["audit", "show", stored, "3"]).await["event"]["leaf"]);
    assert_eq!(
        desk.json(0, &["audit", "stats"]).await["keys"],
        desk.json(0, &["audit", "stats", stored]).await["keys"]
    );
    assert_eq!(desk.json(3, &["audit", "show", "100000"]).await["error"]["code"], "MALFORMED_INPUT");
    let stranger = Desk::at(&world, "transcoder");
    let denied = stranger.json(5, &["audit", "list"]).await;
    assert_eq!(denied["error"]["code"], "DENIED");
    let message = denied["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("denied: not granted") && !message.contains("DENIED"), "{message}");
}

#[tokio::test]
async fn proofs_from_the_live_service_are_those_of_the_stored_log_and_a_receipt_stands_for_the_grant() {
    let world = written().await;
    let desk = Desk::at(&world, "operator");
    desk.json(0, &["audit", "checkpoint", "-o", "@old"]).await;
    world.operator().encrypt("content-key-1", b"frame").await.unwrap();
    let grown = desk.json(0, &["audit", "checkpoint", "-o", "@new"]).await;
    let size = grown["state"]["size"].as_u64().unwrap();
    world.check_until(|checked| checked.events.len() as u64 >= size).await;
    let stored = world.segments_dir();
    let stored = stored.to_str().unwrap();
    let live = desk.json(0, &["audit", "prove", "--event", "3", "--checkpoint", "@old"]).await;
    let offline = desk.json(0, &["audit", "prove", stored, "--event", "3", "--checkpoint", "@old"]).await;
    assert_eq!(live["proof"], offline["proof"]);
    let live = desk.json(0, &["audit", "consistency", "--old", "@old", "--new", "@new"]).await;
    let offline = desk.json(0, &["audit", "consistency", stored, "--old", "@old", "--new", "@new"]).await;
    assert_eq!((&live["proof"], &live["old"]), (&offline["proof"], &offline["old"]));
    assert_eq!(desk.json(0, &["audit", "consistency", "--old", "@old"]).await["old"]["size"], live["old"]["size"]);
    let cose = desk.json(0, &["audit", "prove", "--event", "3", "--format", "cose", "-o", "@3.cose"]).await;
    assert!(cose["size"].as_u64().unwrap() >= size && desk.dir.join("3.cose").exists());
    assert_eq!(
        desk.json(2, &["audit", "prove", stored, "--event", "3", "--format", "cose"]).await["error"]["code"],
        "USAGE"
    );
    // Somebody who may not read, and has the receipt of what it did.
    let transcoder = Desk::at(&world, "transcoder");
    std::fs::write(transcoder.dir.join("in"), b"frame").unwrap();
    let encrypt = ["encrypt", "--key", "content-key-1", "@in", "-o", "@out", "--receipt", "@receipt"];
    transcoder.json(0, &encrypt).await;
    let text = std::fs::read_to_string(transcoder.dir.join("receipt")).unwrap();
    let receipt: transcode_confidential::protocol::api::ReceiptText = text.trim().parse().unwrap();
    let event = receipt.0.sequence.to_string();
    assert_eq!(transcoder.json(5, &["audit", "prove", "--event", &event]).await["error"]["code"], "DENIED");
    let proven = transcoder.json(0, &["audit", "prove", "--event", &event, "--receipt", "@receipt"]).await;
    assert_eq!(proven["event"], receipt.0.sequence.0);
    let cose = ["audit", "prove", "--event", &event, "--receipt", "@receipt", "--format", "cose"];
    assert_eq!(transcoder.json(0, &cose).await["event"], receipt.0.sequence.0);
    // A checkpoint of another history.
    let note = std::fs::read_to_string(desk.dir.join("old")).unwrap();
    std::fs::write(desk.dir.join("changed"), note.replacen("\n1", "\n2", 1)).unwrap();
    let refused = desk.json(4, &["audit", "consistency", "--old", "@changed"]).await;
    assert_eq!(refused["error"]["reason"], "checkpoint-wrong");
}

/// Takes what is printed until it is told to be gone, as `head` does.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<(Vec<u8>, bool)>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.0.lock().unwrap();
        if pipe.1 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        pipe.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pipe {
    async fn until(&self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let text = String::from_utf8_lossy(&self.0.lock().unwrap().0).into_owned();
            if wanted(&text) {
                return text;
            }
            assert!(tokio::time::Instant::now() < deadline, "it never comes: {text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_tail_follows_the_log_over_restarts_line_by_line_and_ends_when_nobody_reads() {
    let mut world = written().await;
    let desk = Desk::at(&world, "operator");
    let (code, out, err) = desk.run(&["audit", "tail", "-n", "3"]).await;
    assert_eq!((code, out.lines().count()), (0, 3), "{out}{err}");
    let pipe = Pipe::default();
    let args = desk.args(&["audit", "tail", "-f", "--json", "--type", "key-used", "-n", "0"]);
    let mut out = pipe.clone();
    let tailing = std::thread::spawn(move || client::cli::run_with(args, &mut out, &mut Vec::new()).code());
    let operator = world.operator();
    let use_it = async |count: usize| {
        for _ in 0..count {
            while operator.encrypt("content-key-1", b"frame").await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    // Until the tail has begun, what is used may be before its begin.
    while pipe.0.lock().unwrap().0.is_empty() {
        use_it(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.restart_enclave().await;
    use_it(2).await;
    let last = world.acknowledged.receipts().iter().map(|receipt| receipt.sequence.0).max().unwrap();
    let text = pipe.until(|text| text.contains(&format!("\"sequence\":{last},"))).await;
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let first = lines.next().unwrap();
    let begin = first["sequence"].as_u64().unwrap();
    let mut sequences = vec![begin];
    sequences.extend(lines.map(|event| event["sequence"].as_u64().unwrap()));
    let stored = world.check_until(|checked| checked.events.len() as u64 > last).await.events;
    let expected = stored
        .iter()
        .filter(|event| event.event_type == AuditEventType::KeyUsed && (begin..=last).contains(&event.sequence.0));
    assert_eq!(sequences, expected.map(|event| event.sequence.0).collect::<Vec<_>>(), "no gap, and nothing twice");
    pipe.0.lock().unwrap().1 = true;
    while !tailing.is_finished() {
        use_it(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(tailing.join().unwrap(), 0);
}

#[tokio::test]
async fn a_tail_goes_on_while_the_segments_that_it_reads_are_closed_and_packed() {
    let mut world = written().await;
    world.stop_proxy().await;
    let often = "[store]\nsegment_age = \"1s\"\npack_after = \"1s\"\n";
    world.configure_proxy(|text| text.replace("[store]\n", often));
    world.start_proxy().await;
    let desk = Desk::at(&world, "operator");
    let operator = world.operator();
    let pipe = Pipe::default();
    // From the first event on: what it reads at first is packed while it reads, and what it reads later had been written just now.
    let args = desk.args(&["audit", "tail", "-f", "--json", "--after", "0"]);
    let mut out = pipe.clone();
    let tailing = std::thread::spawn(move || client::cli::run_with(args, &mut out, &mut Vec::new()).code());
    let packed = |world: &World| {
        let entries = std::fs::read_dir(world.segments_dir()).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".seg.gz")).count()
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while packed(&world) < 4 {
        assert!(tokio::time::Instant::now() < deadline, "nothing is packed");
        // The enclave may not have found the proxy again yet.
        let _ = operator.encrypt("content-key-1", b"frame").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let last = world.acknowledged.receipts().iter().map(|receipt| receipt.sequence.0).max().unwrap();
    let text = pipe.until(|text| text.contains(&format!("\"sequence\":{last},"))).await;
    let sequences = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["sequence"].as_u64().unwrap());
    let sequences: Vec<u64> = sequences.take_while(|sequence| *sequence <= last).collect();
    assert_eq!(sequences, (1..=last).collect::<Vec<_>>(), "no gap, and nothing twice");
    pipe.0.lock().unwrap().1 = true;
    while !tailing.is_finished() {
        let _ = operator.encrypt("content-key-1", b"frame").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(tailing.join().unwrap(), 0);
}
