//! What the system prints and what it stores is public. A process of its own: it captures all output of a whole life.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

use testkit::{
    capture::{Captured, form_of_secret_in},
    kms::fault::Fault,
    segments,
    world::{Plan, World},
};
use transcode_confidential::{audit::segment::RecordKind, message::EncryptionContext, protocol::api::IssueDataKeys};

/// Text that stands for content; it must be found nowhere but with whoever encrypted it.
const CONTENT: &[u8] = b"the last scene, in which everybody lives";

/// Boots, works, fails in many ways, restarts. Gives the secrets and everything that a host can see.
async fn a_life() -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
    let mut world = World::with(Plan::default()).await;
    let operator = world.operator();
    for id in ["content-key-1", "content-key-2"] {
        operator.generate(id).await.unwrap();
        operator.rotate(id).await.unwrap();
    }
    let message = operator.encrypt("content-key-1", CONTENT).await.unwrap();
    assert_eq!(operator.decrypt(&message).await.unwrap(), CONTENT);
    let wanted = IssueDataKeys { count: Some(3), ..IssueDataKeys::default() };
    let key = "content-key-1".parse().unwrap();
    let issued = operator.client.issue_data_keys(&key, &wanted).await.unwrap();
    let item = (issued[0].data_key.wrapped().clone(), EncryptionContext::new());
    operator.client.unwrap_data_keys(vec![item], None).await.unwrap().remove(0).unwrap();
    for fault in [Fault::PlaintextInstead, Fault::PlaintextBeside, Fault::Garbled(100), Fault::EXPIRED] {
        world.kms.fail_next(1, fault);
        let _ = operator.rotate("content-key-2").await;
    }
    let _ = world.caller("stranger").decrypt(&message).await;
    let mut spoilt = message.clone();
    *spoilt.last_mut().unwrap() ^= 1;
    let _ = operator.decrypt(&spoilt).await;
    world.restart_enclave().await;
    assert_eq!(operator.decrypt(&message).await.unwrap(), CONTENT);
    operator.revoke("content-key-2").await.unwrap();
    world.stop_enclave().await.unwrap();
    world.stop_proxy().await;
    world.check().intact();

    let mut secrets = vec![
        ("content".to_owned(), CONTENT.to_vec()),
        ("secret access key".to_owned(), world.credentials.secret_access_key.clone().into_bytes()),
        ("session token".to_owned(), world.credentials.session_token.clone().into_bytes()),
    ];
    for (number, released) in issued.iter().enumerate() {
        secrets.push((format!("data key {number}"), released.data_key.data_key().material().expose().to_vec()));
    }
    let segments = world.segments();
    let records = segments.values().flat_map(|bytes| segments::records(bytes));
    for (number, (_, record)) in records.filter(|(_, record)| record.kind == RecordKind::WrappedKey).enumerate() {
        let blob = segments::wrapped_blob(&record.payload);
        secrets.push((format!("wrapped key {number}"), world.kms.reveal(&blob).unwrap()));
    }
    assert!(secrets.len() >= 6 + 6, "log keys and four versions at least");
    (secrets, segments.into_values().flatten().collect())
}

#[test]
fn neither_the_log_output_nor_the_segments_of_a_whole_life_hold_a_secret() {
    let captured = Captured::everything();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (secrets, stored) = runtime.block_on(a_life());
    drop(runtime);
    let printed = captured.bytes();
    let text = String::from_utf8_lossy(&printed);
    for expected in ["epoch opened", "KMS call failed", "request refused", "TRACE", "DEBUG"] {
        assert!(text.contains(expected), "the life was logged: {expected}");
    }
    assert!(stored.windows(8).any(|window| window == b"operator"), "the search finds what is there");
    for (what, secret) in secrets {
        for (place, bytes) in [("the output", &printed), ("the segments", &stored)] {
            assert_eq!(form_of_secret_in(bytes, &secret), None, "{what} is in {place}");
        }
    }
}
