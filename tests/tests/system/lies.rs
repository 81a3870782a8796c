//! A parent that answers wrongly: it costs availability, and nothing else.

use std::time::Duration;

use enclave_app::{Fatal, ledger::LedgerFatal};
use testkit::{
    parent::Lie,
    world::{Plan, World},
};
use transcode_confidential::protocol::api::ErrorCode;

use crate::answers::code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_survives_a_lying_parent_or_fails_and_goes_well_once_the_parent_is_honest() {
    let mut world = World::with(Plan::scripted()).await;
    let image = world.image().clone();
    world.operator().generate("content-key-1").await.unwrap();
    for kind in ["hello", "segments", "read", "credentials", "append"] {
        for lie in Lie::ALL {
            world.kill_enclave().await;
            world.scripted().lie(kind, lie, 1);
            let booted = tokio::time::timeout(Duration::from_secs(60), world.launch(&image)).await;
            match booted.expect("it hangs") {
                Ok(()) => {}
                Err(Fatal::Boot(_) | Fatal::Ledger(_)) => world.launch(&image).await.unwrap(),
                Err(other) => panic!("{kind} {lie:?}: {other}"),
            }
            world.check().intact();
        }
    }
    let caller = world.operator();
    let message = caller.encrypt("content-key-1", b"frame").await.unwrap();
    assert_eq!(caller.decrypt(&message).await.unwrap(), b"frame");
    world.check().intact();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lie_about_a_batch_is_never_taken_for_an_acknowledgement() {
    let world = World::with(Plan::scripted()).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    for lie in Lie::ALL {
        world.scripted().lie("append", lie, 2);
        for _ in 0..3 {
            if let Err(error) = operator.encrypt("content-key-1", b"frame").await {
                assert_eq!(error.answer().unwrap().code, ErrorCode::AuditUnavailable, "{lie:?}");
            }
        }
        world.check().intact();
    }
    operator.encrypt("content-key-1", b"frame").await.unwrap();
}

#[tokio::test]
async fn a_parent_that_says_it_is_elsewhere_when_the_enclave_comes_back_stops_it() {
    let mut world = World::with(Plan::scripted()).await;
    world.operator().generate("content-key-1").await.unwrap();
    world.scripted().lie("hello", Lie::OtherState, 1);
    world.scripted().disconnect();
    let fatal = world.enclave_ends().await.unwrap_err();
    assert!(matches!(fatal, Fatal::Ledger(LedgerFatal::StoreWentBack)), "{fatal}");
    world.check().intact();
}

#[tokio::test]
async fn a_wrong_proof_from_the_parent_is_found_by_the_client() {
    let world = World::with(Plan::scripted()).await;
    let before = world.operator();
    before.generate("content-key-1").await.unwrap();
    before.encrypt("content-key-1", b"frame").await.unwrap();
    for lie in [Lie::Garbage, Lie::OtherKind, Lie::Failure] {
        world.scripted().lie("consistency", lie, 1);
        assert_eq!(code(world.operator().client.log().await.map(drop)), ErrorCode::AuditUnavailable, "{lie:?}");
    }
    assert!(world.operator().client.log().await.is_ok());
}
