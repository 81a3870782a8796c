//! Who may do what, and how little the others learn.

use std::time::{Duration, Instant};

use client::{ClientError, session::SessionError};
use testkit::world::{Checked, Plan, World, people::PolicyAuthority};
use transcode_confidential::{
    audit::{AuditEventType, AuditSeverity, EventBody},
    message::EncryptionContext,
    protocol::{
        api::ErrorCode,
        policy::{Operation, Policy},
    },
};

use crate::answers::{answer, code};

#[tokio::test]
async fn a_policy_that_is_older_foreign_or_by_somebody_else_is_refused_from_anybody() {
    let mut world = World::with(Plan::scripted()).await;
    let client = world.operator().client;
    world.change_policy(|_| {}).await;
    let current = world.authority.policy().clone();
    let open = |version, deployment: &str| Policy {
        version,
        deployment: deployment.to_owned(),
        grants: vec![testkit::world::people::grant("*", "", &Operation::ALL)],
        ..current.clone()
    };
    let mut somebody = PolicyAuthority::new(testkit::world::DEPLOYMENT);
    let mut cut = world.authority.sign(open(9, "studio"));
    cut.pop();
    let bad = [
        ("older", world.authority.sign(open(1, "studio"))),
        ("the same version", world.authority.sign(open(2, "studio"))),
        ("another deployment", world.authority.sign(open(9, "other"))),
        ("another authority", somebody.issue(|policy| *policy = open(9, "studio"))),
        ("cut off", cut),
        ("nothing", Vec::new()),
    ];
    for (what, document) in &bad {
        assert_eq!(code(client.put_policy(document.clone()).await), ErrorCode::Unverified, "{what}");
    }
    let violations = |checked: &Checked| checked.of_type(AuditEventType::PolicyViolation).len();
    world.check_until(|checked| violations(checked) == bad.len()).await;
    // The parent offers the same.
    for (_, document) in &bad[2..4] {
        let told = violations(&world.check());
        world.offer_policy(document);
        world.check_until(|checked| violations(checked) > told).await;
    }
    world.scripted().offer_policy(None);
    let checked = world.check().intact();
    assert_eq!(checked.of_type(AuditEventType::PolicyChanged).len(), 2);
    assert_eq!(client.status().await.unwrap().policy_version, 2);
    assert_eq!(code(world.caller("stranger").client.status().await), ErrorCode::Denied);
}

#[tokio::test]
async fn a_newer_policy_comes_through_the_parent_by_itself() {
    let mut world = World::start().await;
    let document = world.authority.issue(|policy| policy.denied.push("transcoder".parse().unwrap()));
    world.operator().generate("content-key-1").await.unwrap();
    world.transcoder().encrypt("content-key-1", b"frame").await.unwrap();
    world.offer_policy(&document);
    let deadline = Instant::now() + Duration::from_secs(120);
    while world.operator().client.status().await.unwrap().policy_version < 2 {
        assert!(Instant::now() < deadline, "it never comes");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(code(world.transcoder().encrypt("content-key-1", b"frame").await), ErrorCode::Denied);
    let checked = world.check().intact();
    let Some(EventBody::PolicyAdopted { version: 2, .. }) = checked.of_type(AuditEventType::PolicyChanged)[1].body
    else {
        panic!("no second policy on the record")
    };
}

#[tokio::test]
async fn a_denied_principal_is_cut_off_on_the_connection_that_it_has() {
    let mut world = World::start().await;
    world.operator().generate("content-key-1").await.unwrap();
    let transcoder = world.transcoder();
    let message = transcoder.encrypt("content-key-1", b"frame").await.unwrap();
    world.change_policy(|policy| policy.denied.push("transcoder".parse().unwrap())).await;
    assert_eq!(code(transcoder.encrypt("content-key-1", b"frame").await), ErrorCode::Denied);
    assert_eq!(code(transcoder.decrypt(&message).await), ErrorCode::Denied);
    assert!(transcoder.client.list_keys().await.unwrap().is_empty());
    let checked = world.check_until(|checked| checked.of_type(AuditEventType::UnauthorizedAccess).len() == 2).await;
    let refused = checked.of_type(AuditEventType::UnauthorizedAccess);
    assert!(
        refused
            .iter()
            .all(|event| event.principal.as_deref() == Some("transcoder") && event.severity == AuditSeverity::Critical)
    );
    world.change_policy(|policy| policy.denied.clear()).await;
    assert_eq!(transcoder.decrypt(&message).await.unwrap(), b"frame");
}

#[tokio::test]
async fn what_is_forbidden_and_what_does_not_exist_are_answered_alike() {
    let world = World::start().await;
    let operator = world.operator();
    for id in ["content-key-1", "master-key-1"] {
        operator.generate(id).await.unwrap();
    }
    let message = operator.encrypt("master-key-1", b"frame").await.unwrap();
    let context = EncryptionContext::new();
    for name in ["transcoder", "stranger"] {
        let caller = world.caller(name);
        let denied = answer(caller.key("master-key-2").await);
        assert_eq!(denied.0, ErrorCode::Denied);
        for id in ["master-key-1", "master-key-2"] {
            assert_eq!(answer(caller.key(id).await), denied, "{name} {id}");
            assert_eq!(answer(caller.generate(id).await), denied);
            assert_eq!(answer(caller.rotate(id).await), denied);
            assert_eq!(answer(caller.revoke(id).await), denied);
            assert_eq!(answer(caller.encrypt_in(id, b"frame", context.clone()).await), denied);
        }
        assert_eq!(answer(caller.decrypt(&message).await), denied);
        let mut unknown = message.clone();
        let at = unknown.windows(12).position(|window| window == b"master-key-1").unwrap();
        unknown[at + 11] = b'2';
        assert_eq!(answer(caller.decrypt(&unknown).await), denied);
        assert!(caller.client.list_keys().await.unwrap().iter().all(|key| key.id.as_str().starts_with("content-")));
    }
    assert_eq!(code(operator.key("master-key-2").await), ErrorCode::Denied, "and for those who may, too");
    world.check().intact();
}

#[tokio::test]
async fn a_certificate_of_another_authority_gets_no_answer_and_none_at_all_only_the_attestation() {
    let world = World::start().await;
    let foreign = testkit::world::people::ClientCa::generate().identity_pem("operator");
    let foreign = client::session::Identity::from_pem(foreign.as_bytes()).unwrap();
    let caller = world.caller_with("foreigner", |settings| settings.identity = Some(foreign), None);
    let error = caller.client.log().await.unwrap_err();
    assert!(matches!(error, ClientError::Session(SessionError::IdentityRefused { .. })), "{error}");
    let nobody = world.caller_with("nobody", |settings| settings.identity = None, None);
    assert!(nobody.client.session().attestation().await.is_ok());
    assert_eq!(code(nobody.client.status().await), ErrorCode::Unauthenticated);
    world.check().intact();
}

#[tokio::test]
async fn many_refusals_become_few_events_that_count_them() {
    let mut world = World::start().await;
    let stranger = world.caller("stranger");
    for _ in 0..40 {
        assert_eq!(code(stranger.key("content-key-1").await), ErrorCode::Denied);
    }
    world.stop_enclave().await.unwrap();
    let checked = world.check().intact();
    let refused = checked.of_type(AuditEventType::UnauthorizedAccess);
    let count = |event: &&transcode_confidential::audit::AuditEvent| match event.body {
        Some(EventBody::Refused { count, .. }) => count,
        _ => 0,
    };
    assert_eq!(refused.iter().map(count).sum::<u64>(), 40);
    assert!(refused.len() <= 12, "{}", refused.len());
}

#[tokio::test]
async fn strangers_who_ask_for_attestation_all_at_once_do_not_crowd_each_other_out() {
    let mut plan = Plan::default();
    // What those who want a document each may have.
    plan.limits.attestations_per_second = 1;
    let world = World::with(plan).await;
    let before = world.nsm().attestations();
    let strangers = (0..40).map(|_| {
        let nobody = world.caller_with("nobody", |settings| settings.identity = None, None);
        async move { nobody.client.session().attestation().await.map(drop) }
    });
    for attested in futures_util::future::join_all(strangers).await {
        attested.expect("everybody is answered");
    }
    assert!(world.nsm().attestations() - before < 40, "documents are shared");
    world.check().intact();
}
