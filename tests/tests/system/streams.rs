//! Content that streams while things change.

use std::time::Duration;

use client::{ClientError, ContentDone, ContentError, EncryptRequest};
use testkit::world::{Caller, World, key_id};
use tokio::{
    io::{AsyncRead, AsyncWriteExt as _, DuplexStream},
    task::JoinHandle,
};
use transcode_confidential::{
    audit::{AuditEvent, AuditEventType, EventBody, Outcome},
    ids::{Digest, Sequence},
    message::EncryptionContext,
};

/// Begins to encrypt what comes from `input`; gives the output so far with the result.
pub(crate) fn begin_encryption(
    caller: &Caller,
    id: &str,
    input: impl AsyncRead + Send + Unpin + 'static,
) -> JoinHandle<Result<ContentDone, ClientError>> {
    let (client, key) = (caller.client.clone(), key_id(id));
    tokio::spawn(async move {
        let request = EncryptRequest { key, context: EncryptionContext::new(), content_id: Some("reel 1".to_owned()) };
        client.encrypt(&request, input, &mut tokio::io::sink()).await
    })
}

/// Waits until the use that begins a stream is on the record.
pub(crate) async fn began(world: &World) -> Sequence {
    last(world, AuditEventType::KeyUsed).await.sequence
}

/// Waits for the end of a stream on the record.
async fn end(world: &World) -> AuditEvent {
    last(world, AuditEventType::ContentProcessed).await
}

/// Waits until there is an event of a type, and gives the last.
async fn last(world: &World, event_type: AuditEventType) -> AuditEvent {
    loop {
        let checked = world.check_unanchored();
        if let Some(event) = checked.of_type(event_type).last() {
            return (*event).clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Content of which 4096 bytes have gone into a stream that is on the record, where more goes in, and what becomes of it.
async fn under_way(world: &World, caller: &Caller) -> (DuplexStream, JoinHandle<Result<ContentDone, ClientError>>) {
    let (mut more, input) = tokio::io::duplex(1 << 16);
    more.write_all(&[0; 4096]).await.unwrap();
    let stream = begin_encryption(caller, "content-key-1", input);
    began(world).await;
    (more, stream)
}

#[tokio::test]
async fn the_end_of_a_stream_is_on_the_record_with_size_and_digest() {
    let world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let content = vec![7; 3_000_000];
    let message = operator.encrypt("content-key-1", &content).await.unwrap();
    let event = end(&world).await;
    let expected = EventBody::Processed {
        began: Some(began(&world).await),
        outcome: Outcome::Complete,
        bytes_in: 3_000_000,
        bytes_out: message.len() as u64,
        digest: Some(Digest::of(&message)),
    };
    assert_eq!(event.body, Some(expected));
    assert_eq!(event.principal.as_deref(), Some("operator"));
    world.check().intact();
}

#[tokio::test]
async fn a_revocation_ends_the_streams_under_the_key() {
    let world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let (mut more, stream) = under_way(&world, &operator).await;
    operator.revoke("content-key-1").await.unwrap();
    // It ends at the next piece.
    let _ = more.write_all(&[0; 4096]).await;
    let error = stream.await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Content(ContentError::EndedEarly(_))), "{error}");
    let Some(EventBody::Processed { outcome, bytes_in, .. }) = end(&world).await.body else { panic!("no end") };
    assert_eq!(outcome, Outcome::Aborted);
    assert!(bytes_in <= 8192);
    world.check().intact();
}

#[tokio::test]
async fn a_policy_that_takes_the_grant_back_ends_the_stream() {
    let mut world = World::start().await;
    world.operator().generate("content-key-1").await.unwrap();
    let (mut more, stream) = under_way(&world, &world.transcoder()).await;
    world.change_policy(|policy| policy.denied.push("transcoder".parse().unwrap())).await;
    let _ = more.write_all(&[0; 4096]).await;
    let error = stream.await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Content(ContentError::EndedEarly(_))), "{error}");
    assert_eq!(end(&world).await.principal.as_deref(), Some("transcoder"));
    world.check().intact();
}

#[tokio::test]
async fn a_stream_that_is_under_way_when_the_enclave_stops_is_finished_first() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let (mut more, stream) = under_way(&world, &operator).await;
    let finishing = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        more.write_all(&[0; 4096]).await
    });
    world.stop_enclave().await.unwrap();
    finishing.await.unwrap().unwrap();
    assert_eq!(stream.await.unwrap().unwrap().bytes_in, 8192);
    let Some(EventBody::Processed { outcome, bytes_in, .. }) = end(&world).await.body else { panic!("no end") };
    assert_eq!((outcome, bytes_in), (Outcome::Complete, 8192));
    world.check().intact();
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_an_end_on_the_record() {
    let world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let (more, stream) = under_way(&world, &operator).await;
    stream.abort();
    let Some(EventBody::Processed { outcome, .. }) = end(&world).await.body else { panic!("no end") };
    assert_eq!(outcome, Outcome::Aborted);
    drop(more);
    world.check().intact();
}
