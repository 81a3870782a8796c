//! No record, no release: what happens while the record cannot be kept, and afterwards.

use std::time::{Duration, Instant};

use client::{ClientError, EncryptRequest};
use enclave_app::{Fatal, ledger::LedgerFatal};
use testkit::{
    parent::{Appends, Script},
    world::{Caller, Plan, World, key_id},
};
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    ids::Epoch,
    message::EncryptionContext,
    protocol::{api::ErrorCode, host::HostError},
};

use crate::answers::code;

/// A key, one message under it, and a parent that changes its mind.
async fn outage(begin: impl FnOnce(&mut Script)) -> (World, Caller, Vec<u8>) {
    let world = World::with(Plan::scripted()).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let message = operator.encrypt("content-key-1", b"frame").await.unwrap();
    world.scripted().script(begin);
    // The caller has seen the log, so it asks for no proofs now.
    (world, operator, message)
}

/// While it lasts nothing is released; once it is over everything goes on, and nothing that was acknowledged is lost.
async fn nothing_is_released_until_it_is_over((world, operator, message): (World, Caller, Vec<u8>)) {
    let request = EncryptRequest { key: key_id("content-key-1"), context: EncryptionContext::new(), content_id: None };
    let mut released = Vec::new();
    // Each is answered while the outage lasts: only what comes after ends it.
    let refused = operator.client.encrypt(&request, &b"frame"[..], &mut released).await;
    assert_eq!(code(refused), ErrorCode::AuditUnavailable);
    assert!(released.is_empty());
    let (decrypted, generated, rotated) =
        tokio::join!(operator.decrypt(&message), operator.generate("content-key-2"), operator.rotate("content-key-1"));
    assert_eq!(code(decrypted), ErrorCode::AuditUnavailable);
    assert_eq!(code(generated), ErrorCode::AuditUnavailable);
    assert_eq!(code(rotated), ErrorCode::AuditUnavailable);
    let before = world.check().intact().report.events;
    world.scripted().script(|script| *script = Script::default());
    recovered(async || operator.encrypt("content-key-1", b"frame").await).await;
    assert_eq!(operator.decrypt(&message).await.unwrap(), b"frame");
    let after = world.check().intact();
    assert!(after.report.events > before);
    assert!(after.key("content-key-1").versions.iter().map(|version| version.uses).sum::<u64>() >= 2);
}

/// Asks until it is answered; until then the record cannot be kept, and nothing else is wrong.
async fn recovered<T>(ask: impl AsyncFn() -> Result<T, ClientError>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert_eq!(error.answer().unwrap().code, ErrorCode::AuditUnavailable),
        }
        assert!(Instant::now() < deadline, "it does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn while_the_parent_says_nothing_nothing_is_released() {
    nothing_is_released_until_it_is_over(outage(|script| script.appends = Appends::Hold).await).await;
}

#[tokio::test]
async fn while_the_disk_is_full_nothing_is_released() {
    let full = Appends::Refuse(HostError::StorageFull);
    nothing_is_released_until_it_is_over(outage(|script| script.appends = full).await).await;
}

#[tokio::test]
async fn while_the_disk_fails_nothing_is_released() {
    let failed = Appends::Refuse(HostError::StorageFailed);
    nothing_is_released_until_it_is_over(outage(|script| script.appends = failed).await).await;
}

#[tokio::test]
async fn while_the_parent_is_gone_nothing_is_released() {
    nothing_is_released_until_it_is_over(outage(|script| script.gone = true).await).await;
}

#[tokio::test]
async fn while_the_parent_is_too_slow_nothing_is_released() {
    nothing_is_released_until_it_is_over(outage(|script| script.delay = Duration::from_secs(24 * 3600)).await).await;
}

#[tokio::test]
async fn a_revocation_takes_effect_at_once_while_the_parent_is_gone_and_is_durable_when_it_is_back() {
    for begin in [|script: &mut Script| script.gone = true, |script: &mut Script| script.appends = Appends::Hold] {
        let (world, operator, message) = outage(begin).await;
        assert_eq!(code(operator.revoke("content-key-1").await), ErrorCode::AuditUnavailable, "not durable yet");
        assert_eq!(code(operator.decrypt(&message).await), ErrorCode::Revoked, "but in effect");
        assert_eq!(code(operator.encrypt("content-key-1", b"frame").await), ErrorCode::Revoked);
        world.scripted().script(|script| *script = Script::default());
        world.check_until(|checked| checked.key("content-key-1").active().is_none()).await;
    }
}

#[tokio::test]
async fn a_client_whose_view_of_the_log_is_old_can_revoke_while_the_parent_is_gone() {
    let world = World::with(Plan::scripted()).await;
    let (operator, other) = (world.operator(), world.caller("transcoder"));
    operator.generate("content-key-1").await.unwrap();
    let message = other.encrypt("content-key-1", b"frame").await.unwrap();
    for _ in 0..5 {
        other.encrypt("content-key-1", b"frame").await.unwrap();
    }
    world.scripted().script(|script| script.gone = true);
    world.scripted().disconnect();
    // Remembers less than the log has, and nobody can give it the proof that connects the two.
    let late = world.operator();
    let refused = late.client.status().await.unwrap_err();
    assert!(refused.retryable(), "what it cannot check it does not ask: {refused}");
    assert_eq!(code(late.revoke("content-key-1").await), ErrorCode::AuditUnavailable, "not durable yet");
    assert_eq!(code(other.decrypt(&message).await), ErrorCode::Revoked, "but in effect");
    world.scripted().script(|script| *script = Script::default());
    world.check_until(|checked| checked.key("content-key-1").active().is_none()).await;
}

#[tokio::test]
async fn an_enclave_whose_session_was_taken_over_stops() {
    let (mut world, ..) = outage(|script| script.fenced = true).await;
    world.scripted().disconnect();
    let fatal = world.enclave_ends().await.unwrap_err();
    assert!(matches!(fatal, Fatal::Ledger(LedgerFatal::Fenced)), "{fatal}");
}

#[tokio::test]
async fn a_second_enclave_waits_until_the_first_is_gone() {
    let mut world = World::start().await;
    world.operator().generate("content-key-1").await.unwrap();
    let second = world.second_enclave();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!second.is_finished(), "it neither serves nor gives up");
    world.operator().encrypt("content-key-1", b"frame").await.expect("the first is not disturbed");
    assert_eq!(world.check().intact().report.epochs.len(), 1);
    world.kill_enclave().await;
    world.adopt(second).await.unwrap();
    assert_eq!(world.serving().epoch, Epoch(2));
    world.operator().encrypt("content-key-1", b"frame").await.unwrap();
    assert_eq!(world.check().intact().uses("content-key-1", 1), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_while_the_proxy_dies_again_and_again_under_load() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let over = CancellationToken::new();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (caller, over) = (world.transcoder(), over.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while done == 0 || !over.is_cancelled() {
                    match caller.encrypt("content-key-1", b"frame").await {
                        Ok(_) => done += 1,
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
                done
            })
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        world.kill_proxy().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.start_proxy().await;
    }
    over.cancel();
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    let checked = world.check().intact();
    assert!(checked.uses("content-key-1", 1) >= done, "{done} were acknowledged");
    world.restart_enclave().await;
    world.check().intact();
}

#[tokio::test]
async fn a_full_disk_and_a_failed_sync_under_the_real_proxy_are_survived() {
    let mut plan = Plan::default();
    plan.limits.audit_wait_ms = 2000;
    let world = World::with(plan).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let faults: [fn(&World, bool); 2] =
        [|world, on| world.disk.set_full(on), |world, on| world.disk.set_failing_sync(on)];
    for fault in faults {
        let message = operator.encrypt("content-key-1", b"frame").await.unwrap();
        fault(&world, true);
        assert_eq!(code(operator.encrypt("content-key-1", b"frame").await), ErrorCode::AuditUnavailable);
        assert_eq!(code(operator.decrypt(&message).await), ErrorCode::AuditUnavailable);
        fault(&world, false);
        recovered(async || operator.decrypt(&message).await).await;
        world.check().intact();
    }
}
