//! Requests that no client of ours makes: each gets a typed error and changes nothing.

use bytes::Bytes;
use client::session::RequestBody;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use testkit::world::{Caller, World};
use transcode_confidential::{
    audit::AuditEventType,
    protocol::api::{ApiError, CONTENT_HEADER, CONTEXT_HEADER, ErrorCode, REQUEST_ID_HEADER},
};

/// What the enclave says to a request.
async fn ask(caller: &Caller, request: Request<RequestBody>) -> (StatusCode, ErrorCode) {
    let mut connection = caller.client.session().connection().await.unwrap();
    let timeouts = caller.client.session().settings().timeouts.clone();
    let response = connection.fetch(request, 1 << 20, &timeouts).await.unwrap();
    let error: ApiError = serde_json::from_slice(response.body())
        .unwrap_or_else(|_| panic!("{}: {}", response.status(), String::from_utf8_lossy(response.body())));
    assert_eq!(response.headers()[REQUEST_ID_HEADER].to_str().unwrap(), error.request_id);
    assert_eq!(response.status().as_u16(), error.code.status());
    (response.status(), error.code)
}

fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<RequestBody> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    Request::builder().method(method).uri(path).body(body).unwrap()
}

fn with(mut request: Request<RequestBody>, header: &'static str, value: &str) -> Request<RequestBody> {
    request.headers_mut().insert(header, value.parse().unwrap());
    request
}

#[tokio::test]
async fn whatever_is_malformed_or_too_large_gets_a_typed_error_and_changes_nothing() {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    let world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let message = operator.encrypt("content-key-1", b"frame").await.unwrap();
    let before = world.check().intact();
    let encrypt = || request(POST, "/v1/keys/content-key-1/encrypt", "frame");
    let cut = message[..message.len() / 2].to_vec();
    let mut other_version = message.clone();
    let at = message.windows(15).position(|window| window == b"content-key-1#1").unwrap();
    other_version[at + 14] = b'7';
    let long_id = format!("/v1/keys/{}", "k".repeat(200));
    let cases = [
        (request(GET, "/", ""), ErrorCode::NoSuchRoute),
        (request(GET, "/v1/keys/content-key-1/material", ""), ErrorCode::NoSuchRoute),
        (request(Method::DELETE, "/v1/keys/content-key-1", ""), ErrorCode::NoSuchRoute),
        (request(GET, "/v1/attestation", ""), ErrorCode::Malformed),
        (request(GET, "/v1/attestation?nonce=00", ""), ErrorCode::Malformed),
        (request(GET, "/v1/consistency?old=2&new=1", ""), ErrorCode::Malformed),
        (request(GET, "/v1/consistency?old=1&new=99999999", ""), ErrorCode::Malformed),
        (request(GET, "/v1/consistency?old=-1&new=x", ""), ErrorCode::Malformed),
        (request(GET, "/v1/inclusion?event=5", ""), ErrorCode::Malformed),
        (request(GET, "/v1/inclusion?event=2&size=2", ""), ErrorCode::Malformed),
        (request(GET, "/v1/inclusion?event=1&size=99999999", ""), ErrorCode::Malformed),
        (request(GET, "/v1/receipt?event=99999999", ""), ErrorCode::Malformed),
        (request(GET, "/v1/log", ""), ErrorCode::Malformed),
        (request(GET, "/v1/log?from=-1", ""), ErrorCode::Malformed),
        (request(GET, "/v1/log?from=0&cursor=x", ""), ErrorCode::Malformed),
        (request(GET, "/v1/log?from=0&until=9", ""), ErrorCode::Malformed),
        (request(GET, "/v1/keys/%00", ""), ErrorCode::Malformed),
        (request(GET, "/v1/keys/..%2f..%2fetc", ""), ErrorCode::Malformed),
        (request(GET, &long_id, ""), ErrorCode::Malformed),
        (request(POST, "/v1/keys", "{"), ErrorCode::Malformed),
        (request(POST, "/v1/keys", "{}"), ErrorCode::Malformed),
        (request(POST, "/v1/keys", r#"{"id":"content-key-2","colour":"red"}"#), ErrorCode::Malformed),
        (request(POST, "/v1/keys", r#"{"id":"content-key-2","max_uses":0}"#), ErrorCode::Malformed),
        (request(POST, "/v1/keys", r#"{"id":"content-key-2","max_uses":4294967297}"#), ErrorCode::Malformed),
        (request(POST, "/v1/keys", r#"{"id":"content-key-2","max_age_secs":-1}"#), ErrorCode::Malformed),
        (request(POST, "/v1/keys", vec![b' '; 70_000]), ErrorCode::TooLarge),
        (request(POST, "/v1/keys/content-key-1/rotate", r#"{"expected_version":0}"#), ErrorCode::Conflict),
        (request(POST, "/v1/keys/content-key-1/rotate", "[]x"), ErrorCode::Malformed),
        (with(encrypt(), CONTEXT_HEADER, "no base64!"), ErrorCode::Malformed),
        (with(encrypt(), CONTEXT_HEADER, "WzFd"), ErrorCode::Malformed),
        (with(encrypt(), CONTENT_HEADER, &"x".repeat(5000)), ErrorCode::Malformed),
        (request(POST, "/v1/keys/content-key-1/data-keys", r#"{"count":0}"#), ErrorCode::Malformed),
        (request(POST, "/v1/keys/content-key-1/data-keys", r#"{"count":257}"#), ErrorCode::Malformed),
        (request(POST, "/v1/keys/content-key-1/data-keys", r#"{"context":{"aws-crypto-x":""}}"#), ErrorCode::Malformed),
        (request(POST, "/v1/keys/content-key-1/data-keys", r#"{"content_id":""}"#), ErrorCode::Malformed),
        (request(POST, "/v1/keys/content-key-1/data-keys", vec![b' '; 300_000]), ErrorCode::TooLarge),
        (request(POST, "/v1/data-keys/unwrap", r#"{"items":[]}"#), ErrorCode::Malformed),
        (request(POST, "/v1/data-keys/unwrap", r#"{"items":[{"wrapped":"AAAA"}]}"#), ErrorCode::Malformed),
        (request(POST, "/v1/decrypt", ""), ErrorCode::Malformed),
        (request(POST, "/v1/decrypt", "no message at all"), ErrorCode::Malformed),
        (request(POST, "/v1/decrypt", vec![0; 100_000]), ErrorCode::Malformed),
        (request(POST, "/v1/decrypt", cut), ErrorCode::Malformed),
        (request(POST, "/v1/decrypt", other_version), ErrorCode::Unverified),
        (request(Method::PUT, "/v1/policy", "no policy"), ErrorCode::Unverified),
        (request(Method::PUT, "/v1/policy", vec![0; 100_000]), ErrorCode::TooLarge),
    ];
    for (number, (request, expected)) in cases.into_iter().enumerate() {
        let what = format!("case {number}: {} {}", request.method(), request.uri());
        assert_eq!(ask(&operator, request).await.1, expected, "{what}");
    }
    let after = world.check_until(|checked| !checked.of_type(AuditEventType::PolicyViolation).is_empty()).await;
    assert_eq!(after.keys, before.keys);
    assert!(after.events.len() < before.events.len() + 40, "refusals fill no disk");
    assert_eq!(operator.decrypt(&message).await.unwrap(), b"frame");
}

#[tokio::test]
async fn content_that_was_changed_on_its_way_is_never_released() {
    let world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let content = vec![5; 200_000];
    let message = operator.encrypt("content-key-1", &content).await.unwrap();
    for at in [10, 100, 300, 1000, 70_000, message.len() - 20, message.len() - 1] {
        let mut changed = message.clone();
        changed[at] ^= 1;
        let error = operator.decrypt(&changed).await.unwrap_err();
        assert!(error.to_string().len() > 10, "{at}");
    }
    for length in [0, 50, 400, 70_000, message.len() - 1] {
        assert!(operator.decrypt(&message[..length]).await.is_err(), "{length}");
    }
    assert!(operator.decrypt(&[message.clone(), vec![0]].concat()).await.is_err());
    assert_eq!(operator.decrypt(&message).await.unwrap(), content);
    world.check().intact();
}
