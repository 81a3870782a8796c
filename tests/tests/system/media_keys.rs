//! Media keys: the same key each time, whatever is rotated or restarted, and each time on the record first.

use client::ClientError;
use testkit::{
    parent::Appends,
    world::{Caller, Plan, TRANSCODER, World, people::grant},
};
use transcode_confidential::{
    audit::{AuditEventType, EventBody, KeyOperation},
    ids::KeyVersion,
    keys::KeyRotationPolicy,
    protocol::{api::ErrorCode, policy::Operation},
};

use crate::answers::code;

const KEY: &str = "content-film";

async fn media_key(caller: &Caller, content: &str, period: u64) -> Result<([u8; 16], KeyVersion), ClientError> {
    caller.media_key(KEY, content, period).await.map(|got| (*got.key, got.version))
}

#[tokio::test]
async fn a_period_keeps_its_key_through_rotations_and_restarts_and_counts_once() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate(KEY).await.unwrap();
    let first = media_key(&operator, "1080p", 0).await.unwrap();
    assert_eq!(first.1, KeyVersion(1));
    assert_eq!(media_key(&operator, "1080p", 0).await.unwrap(), first);
    operator.rotate(KEY).await.unwrap();
    assert_eq!(media_key(&operator, "1080p", 0).await.unwrap(), first, "not changed by a rotation");
    let next = media_key(&operator, "1080p", 1).await.unwrap();
    assert_eq!(next.1, KeyVersion(2), "a new period takes the active version");
    let other = media_key(&operator, "720p", 0).await.unwrap();
    assert!(first.0 != next.0 && next.0 != other.0 && first.0 != other.0);
    world.kill_enclave().await;
    world.launch(&world.image().clone()).await.unwrap();
    let operator = world.operator();
    assert_eq!(media_key(&operator, "1080p", 0).await.unwrap(), first, "not changed by a restart");
    assert_eq!(media_key(&operator, "1080p", 1).await.unwrap(), next);
    let checked = world.check().intact();
    assert_eq!((checked.uses(KEY, 1), checked.uses(KEY, 2)), (1, 2));
    let derived = checked
        .of_type(AuditEventType::KeyUsed)
        .into_iter()
        .filter(|event| matches!(event.body, Some(EventBody::KeyUsed { operation: KeyOperation::DeriveMediaKey, .. })));
    assert_eq!(derived.count(), 7, "each time is on the record");
    assert_eq!(checked.key(KEY).media.len(), 3);
}

#[tokio::test]
async fn it_takes_a_grant_of_its_own_and_ends_with_the_key() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate(KEY).await.unwrap();
    let transcoder = world.transcoder();
    assert_eq!(code(media_key(&transcoder, "1080p", 0).await), ErrorCode::Denied, "encrypt and decrypt do not suffice");
    world
        .change_policy(|policy| {
            policy.grants.push(grant(TRANSCODER, "content-", &[Operation::ExportMediaKey]));
        })
        .await;
    media_key(&transcoder, "1080p", 0).await.unwrap();
    operator.revoke(KEY).await.unwrap();
    for period in [0, 1] {
        assert_eq!(code(media_key(&transcoder, "1080p", period).await), ErrorCode::Revoked);
    }
    let checked = world.check().intact();
    assert!(checked.key(KEY).media.is_empty(), "what cannot be used is not kept");
}

#[tokio::test]
async fn at_the_limit_new_periods_wait_for_the_next_version_and_known_ones_do_not() {
    let policy = KeyRotationPolicy { max_age_secs: 3600, max_uses: 2, require_attestation: false };
    let world = World::with(Plan { key_defaults: policy, ..Plan::default() }).await;
    let operator = world.operator();
    operator.generate(KEY).await.unwrap();
    let mut keys = Vec::new();
    for period in 0..6 {
        let key = loop {
            match media_key(&operator, "1080p", period).await {
                Err(error) if error.answer().is_some_and(|answer| answer.code == ErrorCode::RotationDue) => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                key => break key.unwrap(),
            }
        };
        keys.push(key);
    }
    assert!(keys[5].1 > KeyVersion(1));
    for (period, key) in (0..).zip(&keys) {
        assert_eq!(media_key(&operator, "1080p", period).await.unwrap(), *key);
    }
    let checked = world.check().intact();
    for version in &checked.key(KEY).versions {
        assert!(version.uses <= 2, "{version:?}");
    }
}

#[tokio::test]
async fn nothing_is_released_while_the_record_cannot_be_kept() {
    let world = World::with(Plan::scripted()).await;
    let operator = world.operator();
    operator.generate(KEY).await.unwrap();
    media_key(&operator, "1080p", 0).await.unwrap();
    world.scripted().script(|script| script.appends = Appends::Hold);
    for period in [0, 1] {
        assert_eq!(code(media_key(&operator, "1080p", period).await), ErrorCode::AuditUnavailable);
    }
}
