//! A KMS, or whoever stands in its place, that answers wrongly; and rotations that need an attestation.

use testkit::{kms::fault::Fault, world::World};
use transcode_confidential::{
    audit::{AuditEventType, AuditSeverity, EventBody},
    keys::KeyRotationPolicy,
    protocol::api::ErrorCode,
};

use crate::answers::code;

fn lies(other_key: String) -> Vec<(Fault, &'static str)> {
    vec![
        (Fault::PlaintextInstead, "plaintext-reply"),
        (Fault::PlaintextBeside, "plaintext-reply"),
        (Fault::KeyId(other_key), "other-key"),
        (Fault::NotSealed, "not-sealed"),
        (Fault::SealedToAnother, "envelope"),
        (Fault::Garbled(200), "envelope"),
    ]
}

#[tokio::test]
async fn a_reply_that_leaks_or_lies_is_refused_and_on_the_record() {
    let world = World::start().await;
    let operator = world.operator();
    let other = world.kms.create_key(serde_json::json!({ "Statement": [] })).as_str().to_owned();
    for (before, (fault, cause)) in lies(other).into_iter().enumerate() {
        world.kms.fail_next(1, fault.clone());
        assert_eq!(code(operator.generate("content-key-1").await), ErrorCode::KmsUnavailable, "{fault:?}");
        let health = operator.client.status().await.unwrap().kms;
        assert!(health.last_failure.unwrap().starts_with(cause), "{fault:?}");
        let checked =
            world.check_until(|checked| checked.of_type(AuditEventType::PolicyViolation).len() == before + 1).await;
        let last = *checked.of_type(AuditEventType::PolicyViolation).last().unwrap();
        let Some(EventBody::Refused { code, count: 1 }) = &last.body else { panic!("{last:?}") };
        assert_eq!((code.as_str(), last.severity), (cause, AuditSeverity::Critical));
        assert_eq!((last.key_id.as_deref(), checked.keys.iter().count()), (Some("content-key-1"), 0));
    }
    operator.generate("content-key-1").await.expect("the id is still free");
}

#[tokio::test]
async fn after_a_restart_a_lie_about_a_wrapped_key_gives_no_content() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let message = operator.encrypt("content-key-1", b"frame").await.unwrap();
    world.restart_enclave().await;
    let other = world.kms.create_key(serde_json::json!({ "Statement": [] })).as_str().to_owned();
    let lies = lies(other);
    let count = lies.len();
    for (fault, _) in lies {
        world.kms.fail_next(1, fault.clone());
        assert_eq!(code(operator.decrypt(&message).await), ErrorCode::KmsUnavailable, "{fault:?}");
    }
    world.check_until(|checked| checked.of_type(AuditEventType::PolicyViolation).len() == count).await;
    assert_eq!(operator.decrypt(&message).await.unwrap(), b"frame", "a failure is not remembered");
}

#[tokio::test]
async fn kms_taking_its_trust_back_is_on_the_record_as_a_failed_attestation() {
    let world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    world.kms_accepts(&[testkit::nsm::MockImage::named("other")]);
    assert_eq!(code(operator.rotate("content-key-1").await), ErrorCode::KmsUnavailable);
    let checked = world.check_until(|checked| checked.of_type(AuditEventType::AttestationFailed).len() == 1).await;
    assert_eq!(checked.of_type(AuditEventType::AttestationFailed)[0].severity, AuditSeverity::Critical);
    operator.encrypt("content-key-1", b"frame").await.expect("the active version stays");
}

#[tokio::test]
async fn a_rotation_that_requires_attestation_takes_effect_only_after_a_fresh_document() {
    let world = World::start().await;
    let operator = world.operator();
    let policy = KeyRotationPolicy { require_attestation: true, ..KeyRotationPolicy::default() };
    operator.generate_under("content-key-1", policy).await.unwrap();

    world.nsm().set_failure(Some(enclave_app::nsm::NsmError::UnexpectedAnswer));
    assert_eq!(code(operator.rotate("content-key-1").await), ErrorCode::AttestationFailed);
    world.nsm().set_failure(None);
    world.nsm().tamper(|draft| draft.pcrs[0].1[0] ^= 1);
    assert_eq!(code(operator.rotate("content-key-1").await), ErrorCode::AttestationFailed);
    world.nsm().tamper(|_| {});
    assert_eq!(operator.key("content-key-1").await.unwrap().versions.len(), 1);
    let failed = world.check_until(|checked| checked.of_type(AuditEventType::AttestationFailed).len() == 2).await;
    let failed = failed.of_type(AuditEventType::AttestationFailed);
    assert!(failed.iter().all(|event| event.severity == AuditSeverity::Critical && event.key_version.unwrap().0 == 2));

    operator.rotate("content-key-1").await.unwrap();
    let checked = world.check().intact();
    let rotated = checked.of_type(AuditEventType::KeyRotated)[0].sequence;
    let verified = checked.of_type(AuditEventType::AttestationVerified);
    let verified: Vec<_> = verified.iter().filter(|event| event.key_version.is_some()).collect();
    assert_eq!(verified.len(), 1);
    assert!(verified[0].sequence < rotated);
    assert_eq!(checked.report.epochs[0].reattestations, 1, "its document lies in the log and verifies");
}
