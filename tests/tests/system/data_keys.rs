//! Data keys for those who work on their own cores: issued, and unwrapped.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use client::{ClientError, Released};
use testkit::{
    parent::{Appends, Egress, Script},
    world::{Caller, Plan, World, key_id, people::grant},
};
use transcode_confidential::{
    audit::{AuditEventType, EventBody, KeyOperation},
    entropy::OsEntropy,
    ids::{Digest, KeyVersion},
    keys::KeyRotationPolicy,
    message::{DataKey, EncryptionContext, Encryptor, FrameLength, HeaderReader, IssuedDataKey, WrappedDataKey},
    protocol::{
        api::{ErrorCode, IssueDataKeys},
        policy::Operation,
    },
};

use crate::answers::{answer, code};

fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
    EncryptionContext::from_pairs(pairs.iter().copied()).unwrap()
}

fn counted(count: u32) -> IssueDataKeys {
    IssueDataKeys { count: Some(count), ..IssueDataKeys::default() }
}

async fn issue(
    caller: &Caller,
    id: &str,
    request: &IssueDataKeys,
) -> Result<Vec<Released<IssuedDataKey>>, ClientError> {
    let issued = caller.client.issue_data_keys(&key_id(id), request).await?;
    issued.iter().for_each(|released| caller.keep(released.receipt.clone()));
    Ok(issued)
}

async fn unwrap(
    caller: &Caller,
    items: Vec<(WrappedDataKey, EncryptionContext)>,
) -> Result<Vec<Result<Released<DataKey>, ClientError>>, ClientError> {
    let results = caller.client.unwrap_data_keys(items, Some("reel-3".into())).await?;
    results.iter().flatten().for_each(|released| caller.keep(released.receipt.clone()));
    Ok(results)
}

fn write(issued: IssuedDataKey, content: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let mut encryptor = Encryptor::begin_issued(issued, FrameLength::DEFAULT, &OsEntropy, &mut message).unwrap();
    encryptor.push(content, &mut message).unwrap();
    encryptor.finish(&mut message).unwrap();
    message
}

/// Reads a message with a data key that the enclave unwraps.
async fn read(caller: &Caller, message: &[u8]) -> Vec<u8> {
    let mut rest = message;
    let header = HeaderReader::new().push(&mut rest).unwrap().unwrap();
    let wrapped = header.wrapped_data_keys().next().unwrap().clone();
    let unwrapped = unwrap(caller, vec![(wrapped, header.context().clone())]).await.unwrap().remove(0).unwrap();
    let (mut decryptor, mut content) = (header.decrypt_with(&unwrapped.data_key).unwrap(), Vec::new());
    decryptor.push(rest, &mut content).unwrap();
    decryptor.finish().unwrap();
    content
}

#[tokio::test]
async fn what_is_written_with_an_issued_key_is_read_by_the_enclave_and_the_other_way_round() {
    let world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let content = vec![9; 200_000];
    let request = IssueDataKeys {
        context: context(&[("title", "Metropolis")]),
        content_id: Some("reel-3".into()),
        segments: (0..3).map(|number| context(&[("segment", &number.to_string())])).collect(),
        count: None,
    };
    let issued = issue(&operator, "content-key-1", &request).await.unwrap();
    assert_eq!(issued.len(), 3);
    for released in issued {
        let message = write(released.data_key, &content);
        assert_eq!(operator.decrypt(&message).await.unwrap(), content);
        assert_eq!(read(&operator, &message).await, content);
    }
    let (message, _) = operator.encrypt_in("content-key-1", &content, context(&[("reel", "4")])).await.unwrap();
    assert_eq!(read(&operator, &message).await, content);

    let checked = world.check().intact();
    let uses: Vec<_> = checked.of_type(AuditEventType::KeyUsed).into_iter().cloned().collect();
    let of = |wanted| -> Vec<_> {
        let found = uses.iter().filter_map(|event| match event.body {
            Some(EventBody::KeyUsed { operation, uses, context, .. }) if operation == wanted => {
                Some((event.content_id.clone(), event.principal.clone(), uses, context))
            }
            _ => None,
        });
        found.collect()
    };
    let issued = of(KeyOperation::IssueDataKey);
    assert_eq!(issued.len(), 3, "one event for each key");
    for (number, event) in issued.iter().enumerate() {
        let whole = context(&[("title", "Metropolis"), ("segment", &number.to_string())]);
        let digest = Digest::of(&whole.serialize());
        assert_eq!(*event, (Some("reel-3".into()), Some("operator".into()), 1, Some(digest)));
    }
    let unwrapped = of(KeyOperation::UnwrapDataKey);
    assert_eq!(unwrapped.iter().map(|(_, _, uses, _)| uses).collect::<Vec<_>>(), [&0; 4]);
    assert_eq!(checked.uses("content-key-1", 1), 4, "three issued, one encrypted");
}

#[tokio::test]
async fn a_batch_is_one_durable_wait_and_every_key_is_another_one() {
    let world = World::with(Plan::scripted()).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let issued = issue(&operator, "content-key-1", &counted(256)).await.unwrap();
    let seals: BTreeSet<_> = issued.iter().map(|released| released.receipt.seal.state.size).collect();
    assert!(seals.len() <= 32, "{} batches: not one write for each key", seals.len());
    let keys: BTreeSet<_> = issued.iter().map(|released| *released.data_key.data_key().material().expose()).collect();
    let wrapped: BTreeSet<_> = issued.iter().map(|released| released.data_key.wrapped().to_bytes()).collect();
    let places: BTreeSet<_> = issued.iter().map(|released| released.receipt.sequence).collect();
    assert_eq!((keys.len(), wrapped.len(), places.len()), (256, 256, 256));
    assert_eq!(world.check().intact().uses("content-key-1", 1), 256);
}

#[tokio::test]
async fn while_the_record_cannot_be_kept_no_data_key_is_issued_or_unwrapped() {
    let world = World::with(Plan::scripted()).await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let released = issue(&operator, "content-key-1", &counted(1)).await.unwrap().remove(0);
    world.scripted().script(|script| script.appends = Appends::Hold);
    assert_eq!(code(issue(&operator, "content-key-1", &counted(4)).await), ErrorCode::AuditUnavailable);
    let item = (released.data_key.wrapped().clone(), EncryptionContext::new());
    let results = unwrap(&operator, vec![item.clone(), item.clone()]).await.unwrap();
    for result in results {
        assert_eq!(code(result), ErrorCode::AuditUnavailable);
    }
    world.scripted().script(|script| *script = Script::default());
    let deadline = Instant::now() + Duration::from_secs(60);
    while unwrap(&operator, vec![item.clone()]).await.unwrap().remove(0).is_err() {
        assert!(Instant::now() < deadline, "it does not recover");
    }
    assert!(world.check().intact().uses("content-key-1", 1) >= 1);
}

#[tokio::test]
async fn a_batch_beyond_the_limit_gets_what_is_left_and_no_use_more() {
    let world = World::with(Plan::scripted()).await;
    let operator = world.operator();
    let policy = KeyRotationPolicy { max_uses: 10, ..KeyRotationPolicy::default() };
    operator.generate_under("content-key-1", policy).await.unwrap();
    // Without KMS there is no next version, so the limit is met head on.
    world.scripted().script(|script| script.egress = Egress::Closed);
    world.kms.fail_next(1000, testkit::kms::fault::Fault::Closed);
    assert_eq!(issue(&operator, "content-key-1", &counted(7)).await.unwrap().len(), 7);
    assert_eq!(issue(&operator, "content-key-1", &counted(7)).await.unwrap().len(), 3);
    assert_eq!(code(issue(&operator, "content-key-1", &counted(7)).await), ErrorCode::RotationDue);
    assert_eq!(world.check().intact().uses("content-key-1", 1), 10);
    world.kms.clear_faults();
    world.scripted().script(|script| script.egress = Egress::Open);
    let deadline = Instant::now() + Duration::from_secs(60);
    let issued = loop {
        match issue(&operator, "content-key-1", &counted(2)).await {
            Ok(issued) => break issued,
            Err(error) => assert_eq!(error.answer().unwrap().code, ErrorCode::RotationDue),
        }
        assert!(Instant::now() < deadline, "it never rotates");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(issued[0].data_key.wrapped().version(), KeyVersion(2));
}

#[tokio::test]
async fn items_of_a_batch_fail_one_by_one_and_on_the_record() {
    let mut world = World::start().await;
    world
        .change_policy(|policy| {
            policy.grants.push(grant("packager", "content-", &[Operation::IssueDataKey, Operation::Decrypt]));
        })
        .await;
    let operator = world.operator();
    for id in ["content-key-1", "content-key-2", "master-key-1"] {
        operator.generate(id).await.unwrap();
    }
    let packager = world.caller("packager");
    let good = issue(&packager, "content-key-1", &counted(1)).await.unwrap().remove(0).data_key;
    let revoked = issue(&packager, "content-key-2", &counted(1)).await.unwrap().remove(0).data_key;
    let foreign = issue(&operator, "master-key-1", &counted(1)).await.unwrap().remove(0).data_key;
    operator.revoke("content-key-2").await.unwrap();
    let (nothing, other) = (EncryptionContext::new(), context(&[("reel", "4")]));
    let mut version = good.wrapped().to_bytes();
    let at = version.windows(15).position(|window| window == b"content-key-1#1").unwrap();
    version[at + 14] = b'7';
    let items = vec![
        (good.wrapped().clone(), nothing.clone()),
        (good.wrapped().clone(), other),
        (revoked.wrapped().clone(), nothing.clone()),
        (foreign.wrapped().clone(), nothing.clone()),
        (WrappedDataKey::from_bytes(&version).unwrap(), nothing.clone()),
        (good.wrapped().clone(), nothing),
    ];
    let mut results = unwrap(&packager, items).await.unwrap().into_iter();
    let mut next = || results.next().unwrap();
    assert_eq!(next().unwrap().data_key.material().expose(), good.data_key().material().expose());
    for expected in [ErrorCode::Unverified, ErrorCode::Revoked, ErrorCode::Denied, ErrorCode::Unverified] {
        assert_eq!(code(next()), expected);
    }
    assert_eq!(next().unwrap().data_key.material().expose(), good.data_key().material().expose());
    let checked = world.check_until(|checked| {
        let of = |event_type| checked.of_type(event_type).len();
        of(AuditEventType::UnauthorizedAccess) == 1 && of(AuditEventType::PolicyViolation) == 2
    });
    let unwraps = |event: &&&transcode_confidential::audit::AuditEvent| {
        matches!(event.body, Some(EventBody::KeyUsed { operation: KeyOperation::UnwrapDataKey, .. }))
    };
    assert_eq!(checked.await.of_type(AuditEventType::KeyUsed).iter().filter(unwraps).count(), 2);
}

#[tokio::test]
async fn without_the_grant_a_key_gives_no_data_key_and_is_as_one_that_does_not_exist() {
    let world = World::start().await;
    let operator = world.operator();
    operator.generate("content-key-1").await.unwrap();
    let transcoder = world.transcoder();
    let denied = answer(issue(&transcoder, "content-key-1", &counted(1)).await);
    assert_eq!(denied.0, ErrorCode::Denied);
    assert_eq!(answer(issue(&transcoder, "content-key-9", &counted(1)).await), denied);
    assert_eq!(answer(issue(&operator, "content-key-9", &counted(1)).await), denied, "and for those who may, too");
    operator.revoke("content-key-1").await.unwrap();
    assert_eq!(code(issue(&operator, "content-key-1", &counted(1)).await), ErrorCode::Revoked);
    world.check().intact();
}
