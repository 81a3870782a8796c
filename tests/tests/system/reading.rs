//! The log, read through the service: live, proven, and without a gap.

mod commands;
mod tail;

use std::time::Duration;

use client::{ClientError, LogReader, log_memory::LogError};
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
