//! The connection to the parent breaks at every single request, before or after the request had its effect.

use std::{collections::BTreeMap, time::Duration};

use client::ClientError;
use testkit::{
    parent::{Cut, CutWhen},
    world::{Plan, World},
};
use tokio::task::JoinSet;
use transcode_confidential::protocol::api::ErrorCode;

/// Boots, where need be again: a boot during which the connection broke may fail, and must leave nothing that is in the way.
async fn boot(world: &mut World, attempts: usize) {
    let image = world.image().clone();
    for _ in 0..attempts {
        match world.launch(&image).await {
            Ok(()) => return,
            Err(fatal) => assert!(matches!(fatal, enclave_app::Fatal::Boot(_)), "{fatal}"),
        }
    }
    panic!("it does not boot");
}

/// What is asked is done, at the first or at the second attempt; a change that happened at the first says so at the second.
async fn insist<T, F: Future<Output = Result<T, ClientError>>>(ask: impl Fn() -> F) {
    for _ in 0..10 {
        match ask().await {
            Ok(_) => return,
            Err(error) => match error.answer().map(|answer| answer.code) {
                Some(ErrorCode::AuditUnavailable | ErrorCode::KmsUnavailable) => {}
                // The first policy was on its way when the connection broke; the enclave asks again in a second.
                Some(ErrorCode::Denied) => tokio::time::sleep(Duration::from_millis(300)).await,
                Some(ErrorCode::Conflict | ErrorCode::Revoked) => return,
                _ => panic!("{error}"),
            },
        }
    }
    panic!("it is never done");
}

/// Gives the kinds of all requests to the parent.
async fn a_life(cut: Option<Cut>) -> Vec<&'static str> {
    // Once the log is being written the enclave connects anew by itself.
    let attempts = if cut.is_some_and(|cut| cut.kind == "append") { 1 } else { 2 };
    let mut world = World::without_enclave(Plan::scripted()).await;
    world.scripted().script(|script| script.cut = cut);
    boot(&mut world, attempts).await;
    let operator = world.operator();
    insist(|| operator.generate("content-key-1")).await;
    insist(|| operator.encrypt("content-key-1", b"frame")).await;
    insist(|| operator.rotate("content-key-1")).await;
    world.kill_enclave().await;
    boot(&mut world, attempts).await;
    insist(|| operator.encrypt("content-key-1", b"frame")).await;
    insist(|| operator.revoke("content-key-1")).await;
    assert!(world.check().intact().key("content-key-1").active().is_none());
    world.scripted().requests()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_at_any_request_costs_nothing_that_was_acknowledged() {
    let requests = a_life(None).await;
    assert!(requests.len() > 15, "{requests:?}");
    let mut lives = JoinSet::new();
    let mut seen = BTreeMap::<_, usize>::new();
    for kind in requests {
        let number = *seen.entry(kind).and_modify(|number| *number += 1).or_insert(1);
        lives.spawn(a_life(Some(Cut { kind, number, when: CutWhen::Before })));
        // Only these change anything at the parent.
        if ["append", "hello"].contains(&kind) {
            lives.spawn(a_life(Some(Cut { kind, number, when: CutWhen::After })));
        }
        if lives.len() > 2 {
            lives.join_next().await.unwrap().unwrap();
        }
    }
    lives.join_all().await;
}
