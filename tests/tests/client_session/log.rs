//! What a client remembers of a log, and what it does not let pass.

use std::sync::{Arc, Mutex};

use client::{Client, ClientError, ErrorKind, log_memory::LogError};
use transcode_confidential::{
    audit::Receipt,
    ids::{LogId, Sequence},
    protocol::api::{self, CreateKey, KeyChanged, ReceiptText},
};

use crate::enclave::{FakeLog, Script, Server, World, json, some_key};

/// The server is started anew with that log.
async fn serve(world: &World, log: FakeLog) -> Server {
    Server::start(world, Script::genuine(world.launch(), &Arc::new(Mutex::new(log)))).await
}

/// What a fresh client says to a server with that log.
async fn judged(world: &World, log: FakeLog) -> Result<(), LogError> {
    let _server = serve(world, log).await;
    match world.client().log().await {
        Ok(_) => Ok(()),
        Err(ClientError::Log(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

fn request() -> CreateKey {
    CreateKey { id: "film-1".parse().unwrap(), max_age_secs: None, max_uses: None, require_attestation: None }
}

async fn generate(client: &Client) -> Result<Sequence, ClientError> {
    client.generate_key(&request()).await.map(|changed| changed.receipt.0.sequence)
}

fn grown(log: &FakeLog, events: usize) -> FakeLog {
    let mut log = log.clone();
    for event in 0..events {
        log.append(&format!("event {event}"));
    }
    log
}

#[tokio::test]
async fn a_log_is_remembered_at_first_contact_and_followed_as_it_grows() {
    let (world, log) = (World::new(), FakeLog::new(1));
    let server = serve(&world, log.clone()).await;
    let view = world.client().log().await.unwrap();
    assert!(view.known_before().is_none());
    assert_eq!(server.requests(), 1, "a checkpoint, and nothing to prove");
    for more in [0, 1, 5, 64] {
        let server = serve(&world, grown(&log, more)).await;
        let view = world.client().log().await.unwrap();
        assert!(view.known_before().is_some());
        assert_eq!(view.checkpoint().state().size, 2 + more as u64);
        assert_eq!(server.requests(), if more == 0 { 1 } else { 2 });
    }
    let mut next_epoch = grown(&log, 64);
    next_epoch.open_next_epoch();
    judged(&world, next_epoch).await.unwrap();
}

#[tokio::test]
async fn a_log_that_went_back_is_refused_and_nothing_is_forgotten() {
    let (world, log) = (World::new(), FakeLog::new(1));
    judged(&world, grown(&log, 9)).await.unwrap();
    for shorter in [0, 8] {
        assert!(matches!(judged(&world, grown(&log, shorter)).await, Err(LogError::WentBack { .. })));
    }
    let mut restored = log.clone();
    restored.open_next_epoch();
    assert!(matches!(judged(&world, restored).await, Err(LogError::WentBack { .. })));
    let remembered = world.memory().recall(log.log_id).unwrap().unwrap();
    assert_eq!(remembered.newest().size, 11);
    judged(&world, grown(&log, 9)).await.unwrap();
}

#[tokio::test]
async fn an_epoch_that_is_over_does_not_come_back() {
    let (world, log) = (World::new(), FakeLog::new(1));
    let mut second = log.clone();
    second.open_next_epoch();
    judged(&world, second).await.unwrap();
    assert!(matches!(judged(&world, grown(&log, 50)).await, Err(LogError::WentBack { .. })));
}

#[tokio::test]
async fn a_forked_log_is_refused_whatever_its_length() {
    let (world, log) = (World::new(), FakeLog::new(1));
    judged(&world, grown(&log, 9)).await.unwrap();
    let mut fork = grown(&log, 8);
    fork.append("something else");
    assert!(matches!(judged(&world, fork.clone()).await, Err(LogError::Forked { .. })), "the same length");
    assert!(matches!(judged(&world, grown(&fork, 20)).await, Err(LogError::Forked { .. })), "longer");
    fork.open_next_epoch();
    assert!(matches!(judged(&world, fork).await, Err(LogError::Forked { .. })), "after a restart");
}

#[tokio::test]
async fn a_second_enclave_in_the_same_epoch_is_a_fork() {
    let (world, log) = (World::new(), FakeLog::new(1));
    judged(&world, log.clone()).await.unwrap();
    let twin = grown(&log, 3).with_other_epoch_key();
    assert!(matches!(judged(&world, twin).await, Err(LogError::Forked { .. })));
}

#[tokio::test]
async fn a_log_with_another_log_key_is_refused() {
    let (world, log) = (World::new(), FakeLog::new(1));
    judged(&world, log.clone()).await.unwrap();
    let other = grown(&log, 3).with_other_log_key();
    assert!(matches!(judged(&world, other).await, Err(LogError::LogKeyChanged { .. })));
}

#[tokio::test]
async fn another_log_on_a_known_server_has_to_be_accepted_by_name() {
    let world = World::new();
    judged(&world, FakeLog::new(1)).await.unwrap();
    let error = judged(&world, FakeLog::new(2)).await.unwrap_err();
    assert!(matches!(error, LogError::UnknownLog { .. }));
    assert!(error.to_string().contains(&format!("--accept-log {}", LogId::new([2; 16]))), "{error}");
    let _server = serve(&world, FakeLog::new(2)).await;
    let wrong = world.client_accepting(Some(LogId::new([3; 16]))).log().await;
    assert!(matches!(wrong, Err(ClientError::Log(LogError::UnknownLog { .. }))));
    world.client_accepting(Some(LogId::new([2; 16]))).log().await.unwrap();
    world.client().log().await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_that_both_keys_did_not_sign_or_of_another_log_is_refused() {
    let log = FakeLog::new(1);
    let (other_log, other_epoch) = (FakeLog::new(2), log.clone().with_other_epoch_key());
    let cases = [
        other_log.checkpoint(),
        api::CheckpointReply { checkpoint: other_epoch.checkpoint().checkpoint, ..log.checkpoint() },
        api::CheckpointReply { log_key: other_log.checkpoint().log_key, ..log.checkpoint() },
        api::CheckpointReply { state: grown(&log, 1).state(), ..log.checkpoint() },
        api::CheckpointReply { checkpoint: "not a note".into(), ..log.checkpoint() },
    ];
    for reply in cases {
        let world = World::new();
        let mut script = Script::genuine(world.launch(), &Arc::new(Mutex::new(log.clone())));
        script.answer = Box::new(move |request, _, _| (request.uri().path() == api::CHECKPOINT).then(|| json(&reply)));
        let _server = Server::start(&world, script).await;
        let error = world.client().log().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        assert!(world.memory().recall(log.log_id).unwrap().is_none());
    }
}

#[tokio::test]
async fn a_receipt_goes_beyond_the_checkpoint_and_is_held_against_the_next_one() {
    let (world, log) = (World::new(), FakeLog::new(1));
    let server = serve(&world, log.clone()).await;
    let client = world.client();
    assert_eq!(generate(&client).await.unwrap(), Sequence(2));
    assert_eq!(generate(&client).await.unwrap(), Sequence(3));
    drop(server);
    let newest = |world: &World| world.memory().recall(log.log_id).unwrap().unwrap().newest().size;
    assert_eq!(newest(&world), 4);
    // The tail that the receipts are about was dropped, and the enclave restarted on what was left.
    let mut dropped = grown(&log, 1);
    dropped.open_next_epoch();
    assert!(matches!(judged(&world, dropped.clone()).await, Err(LogError::Forked { .. })));
    assert!(matches!(judged(&world, grown(&dropped, 40)).await, Err(LogError::Forked { .. })));
    // The whole log, with another enclave on top of it, is fine.
    let mut whole = log.clone();
    whole.append("key generated");
    whole.append("key generated");
    whole.open_next_epoch();
    judged(&world, whole).await.unwrap();
    assert_eq!(newest(&world), 5);
}

#[tokio::test]
async fn a_checkpoint_a_little_older_than_the_newest_receipt_of_the_same_epoch_is_no_way_back() {
    let (world, log) = (World::new(), FakeLog::new(1));
    let (shared, old) = (Arc::new(Mutex::new(log.clone())), log.checkpoint());
    let mut script = Script::genuine(world.launch(), &shared);
    script.answer = Box::new(move |request, _, _| (request.uri().path() == api::CHECKPOINT).then(|| json(&old)));
    let _server = Server::start(&world, script).await;
    generate(&world.client()).await.unwrap();
    generate(&world.client()).await.unwrap();
    assert_eq!(world.memory().recall(log.log_id).unwrap().unwrap().newest().size, 4);
}

#[tokio::test]
async fn a_change_without_a_right_receipt_counts_as_failed() {
    let log = FakeLog::new(1);
    let right = grown(&log, 1).receipt(Sequence(2));
    let forged = grown(&log, 1).with_other_epoch_key().receipt(Sequence(2));
    let mut next = log.clone();
    next.open_next_epoch();
    let wrong: [Receipt; 4] = [
        forged,
        Receipt { leaf: log.leaves[0], ..right.clone() },
        next.receipt(Sequence(2)),
        FakeLog::new(2).receipt(Sequence(1)),
    ];
    for receipt in wrong {
        let world = World::new();
        let mut script = Script::genuine(world.launch(), &Arc::new(Mutex::new(log.clone())));
        script.answer = Box::new(move |request, _, _| {
            let changed = KeyChanged { key: some_key(), receipt: ReceiptText(receipt.clone()) };
            (request.method() == http::Method::POST).then(|| json(&changed))
        });
        let _server = Server::start(&world, script).await;
        let error = generate(&world.client()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        assert_eq!(world.memory().recall(log.log_id).unwrap().unwrap().newest().size, 2);
    }
}

#[tokio::test]
async fn an_enclave_that_restarts_under_a_client_is_held_against_the_memory_before_the_next_request() {
    let (world, log) = (World::new(), FakeLog::new(1));
    let first = serve(&world, log.clone()).await;
    let client = world.client();
    generate(&client).await.unwrap();
    drop(first);
    let mut dropped = log.clone();
    dropped.open_next_epoch();
    let second = serve(&world, grown(&dropped, 5)).await;
    let error = client.list_keys().await.unwrap_err();
    assert!(matches!(error, ClientError::Log(LogError::Forked { .. })), "{error}");
    assert_eq!(second.requests(), 3, "a checkpoint and two proofs, but no list");
}

#[tokio::test]
async fn a_memory_that_cannot_be_read_is_an_error_and_not_an_empty_one() {
    let (world, log) = (World::new(), FakeLog::new(1));
    judged(&world, log.clone()).await.unwrap();
    let path = world.memory().dir().join("logs").join(format!("{}.json", log.log_id));
    std::fs::write(&path, "{}").unwrap();
    assert!(matches!(judged(&world, log).await, Err(LogError::Memory { .. })));
}

#[tokio::test]
async fn many_clients_share_one_memory() {
    let (world, log) = (World::new(), FakeLog::new(1));
    let _server = serve(&world, log.clone()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let client = world.client();
        tasks.spawn(async move { generate(&client).await.unwrap() });
    }
    let mut sequences: Vec<_> = tasks.join_all().await.into_iter().map(|sequence| sequence.0).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (2..18).collect::<Vec<_>>());
    assert_eq!(world.memory().recall(log.log_id).unwrap().unwrap().newest().size, 18);
}
