//! Suspension, destruction, the oldest version that decrypts, messages encrypted anew, and several operations in one request.

use std::{io::Cursor, time::Duration};

use client::DecryptRequest;
use testkit::world::{Caller, World, key_id};
use transcode_confidential::{
    audit::{AuditEventType, EventBody, KeyChange, KeyOperation},
    ids::KeyVersion,
    keys::{KeyRotationPolicy, KeyState, VersionState},
    message::HeaderReader,
    protocol::{
        api::{BatchOperation, CreateKey, ErrorCode, OneKey, OneVersion},
        policy::Operation,
    },
};

use crate::answers::code;

const FILM: &str = "content-key-1";

async fn rewrap(caller: &Caller, message: &[u8]) -> Result<Vec<u8>, client::ClientError> {
    let mut anew = Vec::new();
    let request = DecryptRequest::default();
    caller.client.rewrap(&request, Cursor::new(message.to_vec()), &mut anew).await.map(|done| {
        assert_eq!(done.key, key_id(FILM));
        anew
    })
}

fn version_of(message: &[u8]) -> KeyVersion {
    let header = HeaderReader::new().push(&mut &*message).unwrap().unwrap();
    header.wrapped_data_keys().next().unwrap().version()
}

#[tokio::test]
async fn a_suspended_key_does_nothing_anywhere_and_comes_back_with_its_resumption() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate(FILM).await.unwrap();
    let message = operator.encrypt(FILM, b"frame").await.unwrap();
    let suspended = operator.client.suspend_key(&key_id(FILM), None).await.unwrap();
    assert_eq!(suspended.key.state, KeyState::Suspended);
    for restarted in [false, true] {
        if restarted {
            world.restart_enclave().await;
        }
        assert_eq!(code(operator.encrypt(FILM, b"frame").await), ErrorCode::Suspended);
        assert_eq!(code(operator.decrypt(&message).await), ErrorCode::Suspended);
        assert_eq!(code(rewrap(&operator, &message).await), ErrorCode::Suspended);
        assert_eq!(code(operator.rotate(FILM).await), ErrorCode::Suspended);
        assert_eq!(code(operator.client.suspend_key(&key_id(FILM), None).await), ErrorCode::Suspended);
    }
    operator.client.resume_key(&key_id(FILM), Some(KeyVersion(1))).await.unwrap();
    assert_eq!(code(operator.client.resume_key(&key_id(FILM), None).await), ErrorCode::Conflict);
    assert_eq!(operator.decrypt(&message).await.unwrap(), b"frame");
    let checked = world.check().intact();
    let changes = checked.of_type(AuditEventType::KeyRevoked);
    assert_eq!(changes[0].body, Some(EventBody::KeyChanged { change: KeyChange::Suspended }));
    assert_eq!(changes[1].principal.as_deref(), Some("operator"));
}

#[tokio::test]
async fn what_is_destroyed_is_gone_for_good_version_by_version_and_whole() {
    let mut world = World::start().await;
    let operator = world.operator();
    let (id, client) = (key_id(FILM), operator.client.clone());
    operator.generate(FILM).await.unwrap();
    let first = operator.encrypt(FILM, b"first").await.unwrap();
    operator.rotate(FILM).await.unwrap();
    let second = operator.encrypt(FILM, b"second").await.unwrap();
    assert_eq!(code(client.destroy_version(&id, KeyVersion(2)).await), ErrorCode::Conflict, "it is active");
    assert_eq!(code(client.destroy_version(&id, KeyVersion(7)).await), ErrorCode::Unverified);
    let destroyed = client.destroy_version(&id, KeyVersion(1)).await.unwrap();
    assert_eq!(destroyed.key.versions[0].state, VersionState::Destroyed);
    for restarted in [false, true] {
        if restarted {
            world.restart_enclave().await;
        }
        assert_eq!(code(operator.decrypt(&first).await), ErrorCode::Revoked);
        assert_eq!(operator.decrypt(&second).await.unwrap(), b"second");
    }
    operator.revoke(FILM).await.unwrap();
    assert_eq!(code(client.suspend_key(&id, None).await), ErrorCode::Revoked);
    client.destroy_key(&id, None).await.unwrap();
    assert_eq!(code(client.destroy_key(&id, None).await), ErrorCode::Revoked);
    world.restart_enclave().await;
    assert_eq!(code(operator.decrypt(&second).await), ErrorCode::Revoked);
    assert_eq!(code(operator.generate(FILM).await), ErrorCode::Conflict, "an id is used once");
    assert_eq!(world.check().intact().key(FILM).state, KeyState::Destroyed);
}

#[tokio::test]
async fn old_messages_are_encrypted_anew_and_then_the_old_version_decrypts_no_more() {
    let world = World::start().await;
    let operator = world.operator();
    let id = key_id(FILM);
    operator.generate(FILM).await.unwrap();
    let content = vec![7; 300_000];
    let context = transcode_confidential::message::EncryptionContext::from_pairs([("title", "film")]).unwrap();
    let (old, _) = operator.encrypt_in(FILM, &content, context.clone()).await.unwrap();
    operator.rotate(FILM).await.unwrap();
    let anew = rewrap(&operator, &old).await.unwrap();
    assert_eq!((version_of(&old), version_of(&anew)), (KeyVersion(1), KeyVersion(2)));
    let mut changed = old.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert!(rewrap(&operator, &changed).await.is_err());
    assert!(rewrap(&operator, &old[..old.len() - 30]).await.is_err());

    operator.client.decrypt_from(&id, KeyVersion(2), None).await.unwrap();
    assert_eq!(code(operator.decrypt(&old).await), ErrorCode::Revoked);
    assert_eq!(code(rewrap(&operator, &old).await), ErrorCode::Revoked);
    assert_eq!(operator.decrypt(&anew).await.unwrap(), content);
    operator.client.decrypt_from(&id, KeyVersion(1), None).await.unwrap();
    assert_eq!(operator.decrypt(&old).await.unwrap(), content);

    let checked = world.check_until(|checked| checked.of_type(AuditEventType::ContentProcessed).len() >= 6).await;
    let rewrapped = |event: &&transcode_confidential::audit::AuditEvent| {
        matches!(
            event.body,
            Some(EventBody::KeyUsed { operation: KeyOperation::Rewrap, uses: 1, context: Some(_), .. })
        ) && event.key_version == Some(KeyVersion(2))
    };
    assert_eq!(checked.of_type(AuditEventType::KeyUsed).iter().copied().filter(rewrapped).count(), 3);
    assert_eq!(checked.key(FILM).versions[1].uses, 3, "each counts as a use");
}

#[tokio::test]
async fn a_stream_ends_where_its_key_is_suspended_or_its_version_destroyed() {
    let world = World::start().await;
    let operator = world.operator();
    operator.generate(FILM).await.unwrap();
    let message = operator.encrypt(FILM, &vec![1; 1 << 20]).await.unwrap();
    operator.rotate(FILM).await.unwrap();
    let (mut feed, input) = tokio::io::duplex(64 * 1024);
    let (client, half) = (operator.client.clone(), message.len() / 2);
    let reading = tokio::spawn(async move {
        let mut out = tokio::io::sink();
        client.decrypt(&DecryptRequest::default(), input, &mut out).await.map(drop)
    });
    tokio::io::AsyncWriteExt::write_all(&mut feed, &message[..half]).await.unwrap();
    world.check_until(|checked| checked.of_type(AuditEventType::KeyUsed).len() == 2).await;
    operator.client.destroy_version(&key_id(FILM), KeyVersion(1)).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), reading).await.expect("it ends").unwrap();
    assert!(ended.is_err());
    world.check().intact();
}

#[tokio::test]
async fn each_change_needs_its_own_grant() {
    let mut world = World::start().await;
    let operator = world.operator();
    operator.generate(FILM).await.unwrap();
    operator.rotate(FILM).await.unwrap();
    let id = key_id(FILM);
    let able = [Operation::Suspend, Operation::Destroy, Operation::Revoke, Operation::Encrypt];
    world
        .change_policy(|policy| {
            for operation in able {
                let name = format!("only-{}", operation as u64);
                policy.grants.push(testkit::world::people::grant(&name, "", &[operation]));
            }
        })
        .await;
    for operation in able {
        let caller = world.caller(&format!("only-{}", operation as u64)).client;
        let may = |needed| if operation == needed { None } else { Some(ErrorCode::Denied) };
        let outcome = |result: Result<_, client::ClientError>| result.err().map(|error| error.answer().unwrap().code);
        assert_eq!(outcome(caller.suspend_key(&id, None).await), may(Operation::Suspend));
        assert_eq!(outcome(caller.resume_key(&id, None).await), may(Operation::Suspend));
        assert_eq!(outcome(caller.decrypt_from(&id, KeyVersion(2), None).await), may(Operation::Suspend));
    }
    let destroyer = world.caller("only-3").client;
    destroyer.destroy_version(&id, KeyVersion(1)).await.unwrap();
    assert_eq!(code(destroyer.revoke_key(&id).await), ErrorCode::Denied);
    destroyer.destroy_key(&id, None).await.unwrap();
    world.check().intact();
}

#[tokio::test]
async fn a_batch_does_what_it_can_and_says_of_each_operation_what_became_of_it() {
    let world = World::start().await;
    let operator = world.operator();
    for id in ["content-key-1", "content-key-2", "content-key-3"] {
        operator.generate(id).await.unwrap();
    }
    let one = |id: &str, expected| OneKey { id: key_id(id), expected_version: expected };
    let new = |id: &str| {
        BatchOperation::Generate(CreateKey {
            id: key_id(id),
            max_age_secs: None,
            max_uses: None,
            require_attestation: None,
        })
    };
    let operations = vec![
        new("content-key-4"),
        BatchOperation::Rotate(one("content-key-1", Some(KeyVersion(1)))),
        BatchOperation::Suspend(one("content-key-2", Some(KeyVersion(9)))),
        BatchOperation::Revoke(one("content-key-3", None)),
        BatchOperation::Resume(one("content-key-9", None)),
        BatchOperation::DecryptFrom(OneVersion {
            id: key_id("content-key-8"),
            version: KeyVersion(1),
            expected_version: None,
        }),
    ];
    let results = operator.client.batch(operations.clone()).await.unwrap();
    assert_eq!(results.iter().map(|result| result.status).collect::<Vec<_>>(), [201, 200, 409, 200, 403, 403]);
    assert_eq!(results[1].changed.as_ref().unwrap().key.active_version, Some(KeyVersion(2)));
    assert_eq!(results[2].error.as_ref().unwrap().code, ErrorCode::Conflict);
    assert_eq!(code(operator.client.batch(Vec::new()).await), ErrorCode::Malformed);
    let twice =
        vec![BatchOperation::Revoke(one("content-key-1", None)), BatchOperation::Suspend(one("content-key-1", None))];
    assert_eq!(code(operator.client.batch(twice).await), ErrorCode::Malformed);
    let many = (0..65).map(|n| new(&format!("content-key-1{n}"))).collect();
    assert_eq!(code(operator.client.batch(many).await), ErrorCode::Malformed);
    let stranger = world.caller("stranger").client.batch(operations).await.unwrap();
    assert!(stranger.iter().all(|result| result.status == 403), "{stranger:?}");
    let checked = world.check_until(|checked| checked.of_type(AuditEventType::UnauthorizedAccess).len() >= 8).await;
    assert_eq!(checked.keys.iter().count(), 4);
}

#[tokio::test]
async fn to_encrypt_anew_waits_for_the_rotation_that_it_begins() {
    let world = World::start().await;
    let operator = world.operator();
    let policy = KeyRotationPolicy { max_uses: 1, ..KeyRotationPolicy::default() };
    operator.generate_under(FILM, policy).await.unwrap();
    let message = operator.encrypt(FILM, b"frame").await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let anew = loop {
        match rewrap(&operator, &message).await {
            Ok(anew) => break anew,
            Err(error) => assert!(error.retryable() && std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(version_of(&anew), KeyVersion(2));
    assert_eq!(operator.decrypt(&anew).await.unwrap(), b"frame");
    world.check().intact();
}
