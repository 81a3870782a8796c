//! No use too many, and no use too few.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use testkit::{
    parent::Egress,
    world::{Plan, World},
};
use transcode_confidential::{
    audit::{AuditEventType, CreationReason, EventBody},
    keys::KeyRotationPolicy,
    protocol::api::ErrorCode,
};

use crate::answers::code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_callers_are_granted_exactly_max_uses_on_one_line_of_history() {
    const MAX_USES: u64 = 100;
    let mut plan = Plan::scripted();
    plan.limits.audit_wait_ms = 5000;
    let world = World::with(plan).await;
    let policy = KeyRotationPolicy { max_uses: MAX_USES, ..KeyRotationPolicy::default() };
    world.operator().generate_under("content-key-1", policy).await.unwrap();
    // Without KMS there is no next version, so the limit is met head on.
    world.scripted().script(|script| script.egress = Egress::Closed);
    world.kms.fail_next(1000, testkit::kms::fault::Fault::Closed);
    let (granted, caller) = (Arc::new(AtomicU64::new(0)), world.transcoder());
    let tasks = (0..64).map(|_| {
        let (granted, caller) = (Arc::clone(&granted), caller.clone());
        tokio::spawn(async move {
            for _ in 0..4 {
                match caller.encrypt("content-key-1", b"frame").await {
                    Ok(_) => {
                        granted.fetch_add(1, Ordering::SeqCst);
                    }
                    result => assert_eq!(code(result), ErrorCode::RotationDue),
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(granted.load(Ordering::SeqCst), MAX_USES);
    let checked = world.check().intact();
    assert_eq!(checked.uses("content-key-1", 1), MAX_USES);
    let places: BTreeSet<_> = checked.of_type(AuditEventType::KeyUsed).iter().map(|event| event.sequence).collect();
    assert_eq!(places.len() as u64, MAX_USES);
    let acknowledged: BTreeSet<_> = world.acknowledged.receipts().iter().map(|receipt| receipt.sequence).collect();
    assert!(places.is_subset(&acknowledged), "every use was told to somebody, each to another one");

    world.kms.clear_faults();
    world.scripted().script(|script| script.egress = Egress::Open);
    while let Err(error) = caller.encrypt("content-key-1", b"frame").await {
        assert_eq!(error.answer().unwrap().code, ErrorCode::RotationDue);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.check().intact().uses("content-key-1", 2), 1);
}

#[tokio::test]
async fn rotation_by_use_begins_ahead_of_the_limit_so_that_nobody_waits() {
    let world = World::start().await;
    let operator = world.operator();
    let policy = KeyRotationPolicy { max_uses: 10, ..KeyRotationPolicy::default() };
    operator.generate_under("content-key-1", policy).await.unwrap();
    let mut messages = Vec::new();
    for _ in 0..8 {
        messages.push(operator.encrypt("content-key-1", b"frame").await.unwrap());
    }
    while operator.key("content-key-1").await.unwrap().versions.len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    messages.push(operator.encrypt("content-key-1", b"frame").await.unwrap());
    for message in &messages {
        assert_eq!(operator.decrypt(message).await.unwrap(), b"frame");
    }
    let checked = world.check().intact();
    assert_eq!((checked.uses("content-key-1", 1), checked.uses("content-key-1", 2)), (8, 1));
    let rotated = checked.of_type(AuditEventType::KeyRotated);
    let Some(EventBody::KeyCreated { reason, .. }) = &rotated[0].body else { panic!("{rotated:?}") };
    assert_eq!(*reason, CreationReason::Uses);
}
