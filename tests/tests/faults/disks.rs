//! Disks that can be read only, or not even that; and a clock of the parent's that jumps.

use testkit::world::World;
use transcode_confidential::{audit::AuditEvent, protocol::api::ErrorCode};

const FILM: &str = "content-key-1";

/// Nothing is released while the disk is like that, and all is well again with the disk.
async fn while_the_disk_cannot(change: impl Fn(&World, bool)) {
    let mut plan = testkit::world::Plan::default();
    plan.limits.audit_wait_ms = 1000;
    let world = World::with(plan).await;
    let operator = world.operator();
    operator.generate(FILM).await.unwrap();
    let message = operator.encrypt(FILM, b"before").await.unwrap();
    let before = world.check().intact().events.len();
    change(&world, true);
    for _ in 0..3 {
        let refused = operator.encrypt(FILM, b"meanwhile").await.unwrap_err();
        assert_eq!(refused.answer().map(|answer| answer.code), Some(ErrorCode::AuditUnavailable), "{refused}");
        let refused = operator.decrypt(&message).await.unwrap_err();
        assert_eq!(refused.answer().map(|answer| answer.code), Some(ErrorCode::AuditUnavailable), "{refused}");
    }
    assert_eq!(world.check().intact().events.len(), before);
    change(&world, false);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while let Err(error) = operator.decrypt(&message).await {
        assert!(error.retryable() && std::time::Instant::now() < deadline, "{error}");
    }
    world.check().intact();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_read_only_nothing_is_released() {
    while_the_disk_cannot(|world, cannot| world.disk.set_read_only(cannot)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_read_keeps_an_enclave_from_booting_and_nothing_else() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate(FILM).await.unwrap();
    let message = operator.encrypt(FILM, b"before").await.unwrap();
    world.disk.set_failing_reads(true);
    // What runs needs nothing that was written before.
    assert_eq!(operator.decrypt(&message).await.unwrap(), b"before");
    world.stop_enclave().await.unwrap();
    let image = world.image().clone();
    world.launch(&image).await.unwrap_err();
    world.disk.set_failing_reads(false);
    let mut attempts = 0;
    while let Err(error) = world.launch(&image).await {
        attempts += 1;
        assert!(attempts < 100, "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(operator.decrypt(&message).await.unwrap(), b"before");
    world.check().intact();
}

/// Ten years, in seconds.
const FAR: i64 = 10 * 365 * 86_400;

#[tokio::test(flavor = "multi_thread")]
async fn the_parent_s_clock_may_jump_as_it_likes() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate(FILM).await.unwrap();
    let began = world.check().intact().events[0].time;
    let mut messages = Vec::new();
    for (number, jump) in [3600, -3600, FAR, -FAR, 0].into_iter().enumerate() {
        world.parent_clock.jump_to(jump);
        // The store looks at its clock each second.
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        messages.push(operator.encrypt(FILM, b"frame").await.unwrap());
        operator.generate(&format!("content-{number}")).await.unwrap();
        operator.rotate(FILM).await.unwrap();
        if number % 2 == 1 {
            world.restart_enclave().await;
        }
        for message in &messages {
            assert_eq!(operator.decrypt(message).await.unwrap(), b"frame", "{jump}");
        }
        let checked = world.check().intact();
        let times: Vec<_> = checked.events.iter().map(|event: &AuditEvent| event.time).collect();
        assert!(times.is_sorted());
        let (first, last) = (times[0], *times.last().unwrap());
        assert!(first == began && last.since(first).as_secs() < 3000, "the enclave has a clock of its own");
    }
}
