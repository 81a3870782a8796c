//! Requests that are sent again under the same idempotency key.

use std::time::Duration;

use bytes::Bytes;
use client::session::RequestBody;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use testkit::{
    parent::{Appends, Script},
    world::{Caller, Plan, World, key_id},
};
use transcode_confidential::{
    audit::{AuditEventType, EventBody},
    ids::{KeyVersion, Sequence},
    protocol::api::{BatchOperation, CreateKey, ErrorCode, IDEMPOTENCY_HEADER, OneKey, REPLAYED_HEADER},
};

use crate::answers::code;

const FILM: &str = "content-key-1";

fn new(id: &str) -> CreateKey {
    CreateKey { id: key_id(id), max_age_secs: None, max_uses: None, require_attestation: None }
}

/// What the enclave says to a request under an idempotency key.
async fn ask(caller: &Caller, path: &str, body: &str, keys: &[&str]) -> (StatusCode, HeaderMap, Bytes) {
    let body: RequestBody = Full::new(Bytes::from(body.to_owned())).map_err(|never| match never {}).boxed_unsync();
    let mut request = Request::builder().method(Method::POST).uri(path).body(body).unwrap();
    for key in keys {
        request.headers_mut().append(IDEMPOTENCY_HEADER, key.parse().unwrap());
    }
    let mut connection = caller.client.session().connection().await.unwrap();
    let timeouts = caller.client.session().settings().timeouts.clone();
    let (head, body) = connection.fetch(request, 1 << 20, &timeouts).await.unwrap().into_parts();
    (head.status, head.headers, body)
}

#[tokio::test]
async fn what_is_asked_again_is_answered_again_and_done_once_also_after_a_restart() {
    let mut world = World::start().await;
    let operator = world.operator();
    let client = operator.client.clone();
    let generated = client.repeatable_as("make").generate_key(&new(FILM)).await.unwrap();
    let rotated = client.repeatable_as("turn").rotate_key(&key_id(FILM), None).await.unwrap();
    operator.generate("content-key-2").await.unwrap();
    let revoked = client.repeatable_as("end").revoke_key(&key_id("content-key-2")).await.unwrap();
    let sequence = |changed: &transcode_confidential::protocol::api::KeyChanged| changed.receipt.0.sequence;
    for restarted in [false, true] {
        if restarted {
            world.restart_enclave().await;
        }
        // The client verifies each receipt; it names the event of the first time.
        let again = client.repeatable_as("make").generate_key(&new(FILM)).await.unwrap();
        assert_eq!((sequence(&again), again.key.active_version), (sequence(&generated), Some(KeyVersion(2))));
        let again = client.repeatable_as("turn").rotate_key(&key_id(FILM), None).await.unwrap();
        assert_eq!((sequence(&again), again.receipt.0.leaf), (sequence(&rotated), rotated.receipt.0.leaf));
        let again = client.repeatable_as("end").revoke_key(&key_id("content-key-2")).await.unwrap();
        assert_eq!(sequence(&again), sequence(&revoked));
        world.acknowledged.keep(again.receipt.0);
    }
    let (status, headers, _) = ask(&operator, "/v1/keys/content-key-1/rotate", "{}", &["turn"]).await;
    assert_eq!((status, &headers[REPLAYED_HEADER]), (StatusCode::OK, &"true".parse().unwrap()));
    let checked = world.check().intact();
    assert_eq!(checked.key(FILM).versions.len(), 2);
    assert_eq!(checked.of_type(AuditEventType::KeyRevoked).len(), 1);
}

#[tokio::test]
async fn a_key_is_for_one_request_of_one_principal() {
    let mut world = World::start().await;
    world
        .change_policy(|policy| {
            let all = &transcode_confidential::protocol::policy::Operation::ALL;
            policy.grants.push(testkit::world::people::grant("other", "", all));
        })
        .await;
    let operator = world.operator();
    operator.generate(FILM).await.unwrap();
    let once = operator.client.repeatable_as("one");
    once.rotate_key(&key_id(FILM), None).await.unwrap();
    let reused = ErrorCode::IdempotencyKeyReused;
    assert_eq!(code(once.rotate_key(&key_id(FILM), Some(KeyVersion(2))).await), reused, "another body");
    assert_eq!(code(once.rotate_key(&key_id("content-key-2"), None).await), reused, "another path");
    assert_eq!(code(once.suspend_key(&key_id(FILM), None).await), reused, "another thing to do");
    let others = world.caller("other").client.repeatable_as("one").rotate_key(&key_id(FILM), None).await.unwrap();
    assert_eq!(others.key.active_version, Some(KeyVersion(3)), "the same key of somebody else is another one");
    for keys in [&["two words"][..], &[""], &["ключ"], &["a", "b"], &["x".repeat(129).as_str()]] {
        let (status, _, _) = ask(&operator, "/v1/keys/content-key-1/rotate", "{}", keys).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{keys:?}");
    }
    world.change_policy(|policy| policy.denied.push("operator".parse().unwrap())).await;
    assert_eq!(code(once.rotate_key(&key_id(FILM), None).await), ErrorCode::Denied, "no answer outlives its grant");
    assert_eq!(world.check().intact().key(FILM).versions.len(), 3);
}

#[tokio::test]
async fn equal_requests_at_the_same_time_are_carried_out_once() {
    let world = World::start().await;
    let operator = world.operator();
    operator.generate(FILM).await.unwrap();
    let asking = (0..12).map(|_| {
        let client = operator.client.repeatable_as("at-once");
        async move { client.rotate_key(&key_id(FILM), None).await.unwrap().receipt.0.sequence }
    });
    let sequences: Vec<Sequence> = futures_util::future::join_all(asking).await;
    assert!(sequences.iter().all(|sequence| *sequence == sequences[0]), "{sequences:?}");
    assert_eq!(world.check().intact().key(FILM).versions.len(), 2);
}

#[tokio::test]
async fn a_batch_that_is_sent_again_does_what_is_left_of_it() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate(FILM).await.unwrap();
    let operations = vec![
        BatchOperation::Rotate(OneKey { id: key_id(FILM), expected_version: None }),
        BatchOperation::Generate(new("content-key-2")),
        BatchOperation::Resume(OneKey { id: key_id("content-key-3"), expected_version: None }),
    ];
    let client = operator.client.repeatable_as("batch-1");
    let first = client.batch(operations.clone()).await.unwrap();
    world.restart_enclave().await;
    let again = client.batch(operations).await.unwrap();
    let sequences = |results: &[transcode_confidential::protocol::api::BatchResult]| {
        results.iter().map(|result| result.changed.as_ref().map(|done| done.receipt.0.sequence)).collect::<Vec<_>>()
    };
    assert_eq!(sequences(&again), sequences(&first));
    assert!(again[0].changed.is_some() && again[2].error.is_some());
    assert_eq!(world.check().intact().key(FILM).versions.len(), 2);
}

#[tokio::test]
async fn what_is_done_to_the_log_is_done_once_also_after_restarts_and_pruning() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate(FILM).await.unwrap();
    let under = |key: &str| operator.client.repeatable_as(key);
    let held = operator.kept_done(under("hold").place_hold("case 7").await).unwrap();
    let lifted = operator.kept_done(under("lift").lift_hold("case 7").await).unwrap();
    let taken = operator.kept_done(under("take").snapshot_log().await).unwrap();
    let mut pruned = None;
    for round in 0..4 {
        let again = operator.kept_done(under("hold").place_hold("case 7").await).unwrap();
        assert_eq!((again.sequence, again.receipt.0.leaf), (held.sequence, held.receipt.0.leaf), "{round}");
        assert_eq!(under("lift").lift_hold("case 7").await.unwrap().sequence, lifted.sequence, "{round}");
        assert_eq!(under("take").snapshot_log().await.unwrap().sequence, taken.sequence, "{round}");
        if round == 1 {
            let checked = world.check().intact();
            let of = |kind: fn(&EventBody) -> bool| {
                checked.events.iter().filter(|event| event.body.as_ref().is_some_and(kind)).count()
            };
            assert_eq!(of(|body| matches!(body, EventBody::Hold { .. })), 2);
            assert_eq!(of(|body| matches!(body, EventBody::Snapshot { .. })), 1);
        }
        if round >= 1 {
            let done = operator.kept_done(under("prune").prune_log(None).await).unwrap();
            assert_eq!(done.below, Some(taken.sequence), "{round}");
            assert_eq!(*pruned.get_or_insert(done.sequence), done.sequence, "{round}");
        }
        if round % 2 == 0 {
            world.restart_enclave().await;
        }
    }
    let reused = ErrorCode::IdempotencyKeyReused;
    assert_eq!(code(under("hold").place_hold("case 8").await), reused);
    assert_eq!(code(under("hold").lift_hold("case 7").await), reused);
    assert_eq!(code(under("prune").prune_log(Some(Sequence(1))).await), reused);
    assert_eq!(operator.client.holds().await.unwrap().len(), 0, "and none came of it");
    let (status, headers, _) = ask(&operator, "/v1/log/snapshot", "{}", &["take"]).await;
    assert_eq!((status, &headers[REPLAYED_HEADER]), (StatusCode::OK, &"true".parse().unwrap()));
    let checked = world.check().intact();
    assert_eq!(checked.report.kept_from, taken.sequence);
    let prunings = checked.events.iter().filter(|event| matches!(event.body, Some(EventBody::Pruned { .. })));
    assert_eq!(prunings.map(|event| event.sequence).collect::<Vec<_>>(), Vec::from_iter(pruned));
    let snapshot = checked.events.iter().find(|event| event.sequence == taken.sequence).unwrap();
    assert_eq!(snapshot.principal.as_deref(), Some("operator"));
}

#[tokio::test]
async fn a_policy_that_is_handed_over_again_is_answered_again() {
    let mut world = World::start().await;
    let client = world.operator().client;
    let document = world.authority.issue(|_| {});
    let once = client.repeatable_as("policy");
    let first = once.put_policy(document.clone()).await.unwrap();
    let again = once.put_policy(document.clone()).await.unwrap();
    assert_eq!((again.version, again.receipt.0.sequence), (first.version, first.receipt.0.sequence));
    assert_eq!(code(client.put_policy(document).await), ErrorCode::Unverified, "without the key it is only old");
    world.check().intact();
}

#[tokio::test]
async fn what_is_asked_again_before_it_is_durable_is_answered_when_it_is() {
    let mut plan = Plan::scripted();
    plan.limits.audit_wait_ms = 4000;
    let world = World::with(plan).await;
    let operator = world.operator();
    operator.generate(FILM).await.unwrap();
    let client = operator.client.repeatable_as("end");
    let revoke = || async { client.revoke_key(&key_id(FILM)).await };
    world.scripted().script(|script| script.appends = Appends::Hold);
    for _ in 0..2 {
        assert_eq!(code(revoke().await), ErrorCode::AuditUnavailable, "in force, and not on a durable record");
    }
    let (again, ()) = tokio::join!(revoke(), async {
        tokio::time::sleep(Duration::from_millis(1000)).await;
        world.scripted().script(|script| *script = Script::default());
    });
    world.acknowledged.keep(again.unwrap().receipt.0);
    assert_eq!(world.check().intact().of_type(AuditEventType::KeyRevoked).len(), 1);
}
