//! Content that ends early, comes from the wrong key, or comes without proof.

use std::{
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use client::{ClientError, ContentDone, ContentError, DecryptRequest, EncryptRequest, ErrorKind};
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use transcode_confidential::{
    ids::KeyVersion,
    message::EncryptionContext,
    protocol::api::{self, ErrorCode},
};

use crate::enclave::{Body, FakeLog, Script, Server, World, content, refusal};

type Reply = fn(&Request<()>, Bytes, &mut FakeLog) -> Response<Body>;

/// A server that answers content so.
async fn serve(world: &World, reply: Reply) -> Server {
    let log = Arc::new(Mutex::new(FakeLog::new(1)));
    let mut script = Script::genuine(world.launch(), &log);
    script.answer =
        Box::new(move |request, body, log| (request.method() == http::Method::POST).then(|| reply(request, body, log)));
    Server::start(world, script).await
}

async fn decrypt(world: &World, request: &DecryptRequest) -> (Result<ContentDone, ClientError>, Vec<u8>) {
    let mut out = Vec::new();
    (world.client().decrypt(request, &b"message"[..], &mut out).await, out)
}

async fn encrypt(world: &World) -> (Result<ContentDone, ClientError>, Vec<u8>) {
    let request = EncryptRequest {
        key: "film-1".parse().unwrap(),
        context: EncryptionContext::from_pairs([("title", "Metropolis")]).unwrap(),
        content_id: Some("reel-3".into()),
    };
    let mut out = Vec::new();
    (world.client().encrypt(&request, &b"plaintext"[..], &mut out).await, out)
}

#[tokio::test]
async fn what_comes_whole_is_written_and_described() {
    let world = World::new();
    let _server = serve(&world, |request, body, log| {
        assert_eq!(request.uri().path(), "/v1/keys/film-1/encrypt");
        assert_eq!(request.headers()[api::CONTENT_HEADER], "reel-3");
        assert_eq!(request.headers()[api::CONTEXT_HEADER], "eyJ0aXRsZSI6Ik1ldHJvcG9saXMifQ==");
        assert_eq!(body, "plaintext");
        content(log, "film-1#3", r#"{"title":"Metropolis"}"#, vec![Ok(b"cipher"), Ok(b"text")])
    })
    .await;
    let (done, out) = encrypt(&world).await;
    let done = done.unwrap();
    assert_eq!(out, b"ciphertext");
    assert_eq!((done.version, done.bytes_in, done.bytes_out), (KeyVersion(3), 9, 10));
    assert_eq!(done.context.value("title"), Some("Metropolis"));
    assert_eq!(world.memory().recall(done.receipt.log_id()).unwrap().unwrap().newest().size, 3);
}

#[tokio::test]
async fn content_that_ends_early_fails_after_what_came() {
    let world = World::new();
    let _server = serve(&world, |_, _, log| {
        content(
            log,
            "film-1#1",
            "{}",
            vec![Ok(b"the first frame"), Err(io::Error::other("the second does not verify"))],
        )
    })
    .await;
    let (result, out) = decrypt(&world, &DecryptRequest::default()).await;
    let error = result.unwrap_err();
    assert!(matches!(error, ClientError::Content(ContentError::EndedEarly(_))), "{error}");
    assert_eq!((error.kind(), out.as_slice()), (ErrorKind::Verification, &b"the first frame"[..]));
}

#[tokio::test]
async fn a_body_that_could_be_cut_anywhere_is_not_read() {
    let world = World::new();
    let _server = serve(&world, |_, _, log| {
        let mut response = content(log, "film-1#1", "{}", vec![Ok(b"all of it?")]);
        // An answer in HTTP/1.0 ends when the connection does.
        *response.version_mut() = http::Version::HTTP_10;
        response
    })
    .await;
    let (result, out) = decrypt(&world, &DecryptRequest::default()).await;
    let error = result.unwrap_err();
    assert!(matches!(error, ClientError::Content(ContentError::Unbounded)), "{error}");
    assert_eq!(out, b"");
}

#[tokio::test]
async fn a_message_under_another_key_or_without_the_context_gives_no_byte() {
    let world = World::new();
    let _server = serve(&world, |_, _, log| content(log, "film-1#1", r#"{"reel":"3"}"#, vec![Ok(b"plaintext")])).await;
    let other_key = DecryptRequest { expected_key: Some("film-2".parse().unwrap()), ..DecryptRequest::default() };
    let context = EncryptionContext::from_pairs([("reel", "4")]).unwrap();
    let other_context = DecryptRequest { expected_context: context, ..DecryptRequest::default() };
    for request in [other_key, other_context] {
        let (result, out) = decrypt(&world, &request).await;
        assert_eq!((result.unwrap_err().kind(), out.as_slice()), (ErrorKind::Verification, &b""[..]));
    }
    let context = EncryptionContext::from_pairs([("reel", "3")]).unwrap();
    let right = DecryptRequest {
        expected_key: Some("film-1".parse().unwrap()),
        expected_context: context,
        ..DecryptRequest::default()
    };
    assert_eq!(decrypt(&world, &right).await.1, b"plaintext");
}

#[tokio::test]
async fn content_without_a_right_receipt_gives_no_byte() {
    let without: Reply = |_, _, log| {
        let mut response = content(log, "film-1#1", "{}", vec![Ok(b"plaintext")]);
        response.headers_mut().remove(api::RECEIPT_HEADER);
        response
    };
    let of_another_log: Reply = |_, _, _| content(&mut FakeLog::new(2), "film-1#1", "{}", vec![Ok(b"plaintext")]);
    for reply in [without, of_another_log] {
        let world = World::new();
        let _server = serve(&world, reply).await;
        let (result, out) = decrypt(&world, &DecryptRequest::default()).await;
        assert_eq!((result.unwrap_err().kind(), out.as_slice()), (ErrorKind::Verification, &b""[..]));
    }
}

#[tokio::test]
async fn refusals_come_with_their_kind() {
    for (code, kind) in [
        (ErrorCode::Denied, ErrorKind::Denied),
        (ErrorCode::Revoked, ErrorKind::Denied),
        (ErrorCode::Malformed, ErrorKind::Malformed),
        (ErrorCode::Unverified, ErrorKind::Verification),
        (ErrorCode::AuditUnavailable, ErrorKind::Unavailable),
    ] {
        let world = World::new();
        let log = Arc::new(Mutex::new(FakeLog::new(1)));
        let mut script = Script::genuine(world.launch(), &log);
        script.answer = Box::new(move |request, _, _| (request.method() == http::Method::POST).then(|| refusal(code)));
        let _server = Server::start(&world, script).await;
        let (result, out) = encrypt(&world).await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.retryable(), out.len()), (kind, code.retryable(), 0));
        assert_eq!(error.answer().unwrap().code, code);
    }
}

#[tokio::test]
async fn an_input_that_fails_is_told_apart_from_a_server_that_does() {
    let world = World::new();
    let _server = serve(&world, |_, _, log| content(log, "film-1#1", "{}", vec![Ok(b"half a message")])).await;
    let broken = tokio_util::io::StreamReader::new(futures_util::stream::iter([
        Ok(Bytes::from_static(b"half")),
        Err(io::Error::other("the disk is gone")),
    ]));
    let request =
        EncryptRequest { key: "film-1".parse().unwrap(), context: EncryptionContext::new(), content_id: None };
    let mut out = Vec::new();
    let error = world.client().encrypt(&request, broken, &mut out).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Content(ContentError::Input(cause)) if cause.to_string() == "the disk is gone")
    );
}

#[tokio::test]
async fn content_that_stalls_is_given_up_in_time() {
    let world = World::new();
    let _server = serve(&world, |_, _, log| {
        let mut response = content(log, "film-1#1", "{}", vec![Ok(b"the first frame")]);
        let (parts, body) = response.into_parts();
        let never = futures_util::stream::pending();
        let frames = http_body_util::BodyDataStream::new(body).map_ok(hyper::body::Frame::data).chain(never);
        response = Response::from_parts(parts, http_body_util::StreamBody::new(frames).boxed_unsync());
        response
    })
    .await;
    let mut settings = world.settings();
    settings.timeouts.idle = std::time::Duration::from_millis(200);
    let client = client::Client::new(client::session::Session::new(world.endpoint(), settings), world.memory(), None);
    let mut out = Vec::new();
    let error = client.decrypt(&DecryptRequest::default(), &b"message"[..], &mut out).await.unwrap_err();
    assert!(matches!(error, ClientError::Content(ContentError::Stalled(_))), "{error}");
    assert_eq!((error.kind(), out.as_slice()), (ErrorKind::Unavailable, &b"the first frame"[..]));
}

#[tokio::test]
async fn a_refusal_that_comes_before_the_content_was_read_is_heard() {
    let world = World::new();
    let log = Arc::new(Mutex::new(FakeLog::new(1)));
    let mut script = Script::genuine(world.launch(), &log);
    script.hasty = true;
    script.answer =
        Box::new(|request, _, _| (request.method() == http::Method::POST).then(|| refusal(ErrorCode::Denied)));
    let _server = Server::start(&world, script).await;
    let client = world.client();
    for _ in 0..8 {
        let endless = tokio::io::repeat(7);
        let request =
            EncryptRequest { key: "film-1".parse().unwrap(), context: EncryptionContext::new(), content_id: None };
        let error = client.encrypt(&request, endless, &mut Vec::new()).await.unwrap_err();
        assert!(matches!(error, ClientError::Denied(_)), "{error}");
    }
}
