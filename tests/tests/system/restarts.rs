//! An enclave forgets everything, and finds all of it again.

use std::time::Duration;

use testkit::world::World;
use transcode_confidential::{
    audit::{AuditEventType, EventBody, Outcome},
    ids::Epoch,
    keys::KeyRotationPolicy,
    protocol::api::ErrorCode,
};

use crate::answers::code;

#[tokio::test]
async fn after_two_restarts_in_a_row_every_key_is_usable_again_through_attested_decrypts() {
    let mut world = World::start().await;
    let operator = world.operator();
    let mut messages = Vec::new();
    for id in ["content-key-1", "content-key-2"] {
        operator.generate(id).await.unwrap();
        for version in 1..=3 {
            let content = format!("{id} version {version}").into_bytes();
            messages.push((operator.encrypt(id, &content).await.unwrap(), content));
            operator.rotate(id).await.unwrap();
        }
    }
    world.check().intact();
    for epoch in [2, 3] {
        world.restart_enclave().await;
        assert_eq!(world.serving().epoch, Epoch(epoch));
        let before = world.kms.requests().len();
        for (message, content) in &messages {
            assert_eq!(operator.decrypt(message).await.unwrap(), *content);
        }
        let requests = world.kms.requests().split_off(before);
        let unwrapped = requests.iter().filter(|request| request.operation == "Decrypt" && request.document.is_some());
        assert_eq!(unwrapped.count(), messages.len(), "each version is unwrapped once, by attestation");
    }
    let checked = world.check().intact();
    assert_eq!(checked.report.epochs.len(), 3);
    assert_eq!(checked.of_type(AuditEventType::EnclaveCreated).len(), 3);
    assert_eq!(checked.of_type(AuditEventType::KeyRotated).len(), 6);
}

#[tokio::test]
async fn what_was_acknowledged_survives_the_sudden_death_of_the_enclave() {
    let mut world = World::start().await;
    let image = world.image().clone();
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    for round in 0..3_u8 {
        let message = operator.encrypt("content-key-1", &[round]).await.unwrap();
        world.kill_enclave().await;
        world.check().intact();
        world.launch(&image).await.unwrap();
        assert_eq!(operator.decrypt(&message).await.unwrap(), [round]);
    }
    let checked = world.check().intact();
    assert_eq!((checked.report.epochs.len(), checked.uses("content-key-1", 1)), (4, 3));
}

#[tokio::test]
async fn after_a_sudden_death_the_outcome_of_open_streams_is_on_record_as_unknown() {
    let mut world = World::start().await;
    let image = world.image().clone();
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let (hold, input) = tokio::io::duplex(64);
    let stream = crate::streams::begin_encryption(&operator, "content-key-1", input);
    let began = crate::streams::began(&world).await;
    world.kill_enclave().await;
    drop(hold);
    assert!(stream.await.unwrap().is_err());
    world.launch(&image).await.unwrap();
    let checked = world.check().intact();
    let ends = checked.of_type(AuditEventType::ContentProcessed);
    let [end] = ends[..] else { panic!("one stream, one end: {ends:?}") };
    let Some(EventBody::Processed { began: of, outcome, .. }) = &end.body else { panic!("{end:?}") };
    assert_eq!((*of, *outcome), (Some(began), Outcome::Unknown));
}

#[tokio::test]
async fn revoked_stays_revoked_and_used_stays_used_over_a_restart() {
    let mut world = World::start().await;
    let operator = world.operator();
    let policy = KeyRotationPolicy { max_uses: 100, ..KeyRotationPolicy::default() };
    operator.generate_under("content-key-1", policy).await.unwrap();
    operator.generate("content-key-2").await.unwrap();
    let message = operator.encrypt("content-key-2", b"frame").await.unwrap();
    operator.encrypt("content-key-1", b"frame").await.unwrap();
    operator.revoke("content-key-2").await.unwrap();
    world.restart_enclave().await;
    assert_eq!(code(operator.decrypt(&message).await), ErrorCode::Revoked);
    assert_eq!(code(operator.encrypt("content-key-2", b"frame").await), ErrorCode::Revoked);
    assert_eq!(code(operator.generate("content-key-2").await), ErrorCode::Conflict, "an id is never used again");
    let key = operator.key("content-key-1").await.unwrap();
    assert_eq!((key.policy, key.versions[0].uses), (policy, 1));
    world.check().intact();
}

#[tokio::test]
async fn the_policy_in_force_is_found_again_without_the_parent_s_help() {
    let mut world = World::start().await;
    world.change_policy(|policy| policy.denied.push("transcoder".parse().unwrap())).await;
    std::fs::remove_file(world.dir().join("policies").join("policy.cose")).unwrap();
    world.operator().generate("content-key-1").await.unwrap();
    world.restart_enclave().await;
    assert_eq!(world.operator().client.status().await.unwrap().policy_version, 2);
    assert_eq!(code(world.transcoder().encrypt("content-key-1", b"frame").await), ErrorCode::Denied);
    world.check().intact();
}

#[tokio::test]
async fn an_enclave_that_the_parent_asks_to_stop_seals_its_log_and_ends_well() {
    let mut world = World::start().await;
    world.operator().generate("content-key-1").await.unwrap();
    assert!(world.ask_enclave_to_stop());
    world.enclave_ends().await.unwrap();
    world.check().intact();
    // The parent hears of its end a moment later; then nobody is left to ask.
    let heard = async {
        while world.ask_enclave_to_stop() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), heard).await.unwrap();
    let image = world.image().clone();
    world.launch(&image).await.unwrap();
    let operator = world.operator();
    let message = operator.encrypt("content-key-1", b"frame").await.unwrap();
    assert_eq!(operator.decrypt(&message).await.unwrap(), b"frame");
}
