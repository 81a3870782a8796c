//! What the system prints and what it stores is public. A process of its own: it captures all output of a whole life.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

use std::{
    io,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use testkit::{
    kms::fault::Fault,
    segments,
    world::{Plan, World},
};
use tracing_subscriber::fmt::MakeWriter;
use transcode_confidential::{
    audit::segment::RecordKind, cbor::Reader, message::EncryptionContext, protocol::api::IssueDataKeys,
};

/// Everything that is logged, at every level, by every crate.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

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
        // {0: 1, 1: ciphertext blob, ...}
        let mut reader = Reader::new(&record.payload);
        let mut map = reader.int_map(16).unwrap();
        map.required(0).unwrap().uint().unwrap();
        let blob = map.required(1).unwrap().bytes(8192).unwrap();
        secrets.push((format!("wrapped key {number}"), world.kms.reveal(blob).unwrap()));
    }
    assert!(secrets.len() >= 6 + 6, "log keys and four versions at least");
    (secrets, segments.into_values().flatten().collect())
}

#[test]
fn neither_the_log_output_nor_the_segments_of_a_whole_life_hold_a_secret() {
    let captured = Captured::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(captured.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (secrets, stored) = runtime.block_on(a_life());
    drop(runtime);
    let printed = captured.0.lock().unwrap().clone();
    let text = String::from_utf8_lossy(&printed);
    for expected in ["epoch opened", "KMS call failed", "request refused", "TRACE", "DEBUG"] {
        assert!(text.contains(expected), "the life was logged: {expected}");
    }
    assert!(stored.windows(8).any(|window| window == b"operator"), "the search finds what is there");
    for (what, secret) in secrets {
        let forms = [
            secret.clone(),
            hex::encode(&secret).into_bytes(),
            hex::encode_upper(&secret).into_bytes(),
            STANDARD.encode(&secret).into_bytes(),
            format!("{secret:?}").into_bytes(),
        ];
        for form in forms {
            for (place, bytes) in [("the output", &printed), ("the segments", &stored)] {
                let found = bytes.windows(form.len()).any(|window| window == form);
                assert!(!found, "{what} is in {place} as {}", String::from_utf8_lossy(&form));
            }
        }
    }
}
