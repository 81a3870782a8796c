//! Content on the client's own cores: the same messages as the enclave's, under the same rules.

use testkit::world::{Plan, World};
use transcode_confidential::{
    audit::{AuditEventType, EventBody, KeyOperation},
    keys::KeyRotationPolicy,
};

use crate::desk::Desk;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[tokio::test]
async fn what_is_encrypted_locally_the_enclave_reads_and_the_other_way_round() {
    let world = World::start().await;
    world.operator().generate("content-key-1").await.unwrap();
    let desk = Desk::of(&world, "operator");
    for length in [0, 1, 65_536, 1 << 20, 5_000_000] {
        desk.write("in", content(length));
        for (encrypt, decrypt) in [(true, false), (false, true), (true, true)] {
            let local = |wanted| if wanted { "--local" } else { "--json" };
            let args =
                ["encrypt", local(encrypt), "--key", "content-key-1", "--context", "reel=3", "@in", "-o", "@message"];
            let done = desk.run(0, &args).await;
            assert_eq!(done["bytes_in"], length);
            let args = ["decrypt", local(decrypt), "--context", "reel=3", "@message", "-o", "@out"];
            let done = desk.run(0, &args).await;
            assert_eq!((done["bytes_out"].as_u64(), &done["context"]["reel"]), (Some(length as u64), &"3".into()));
            assert!(desk.read("out") == content(length));
        }
    }
    let other = desk.run(4, &["decrypt", "--local", "--context", "reel=4", "@message", "-o", "@other"]).await;
    assert_eq!(other["error"]["reason"], "other-context");
    let other = desk.run(4, &["decrypt", "--local", "--key", "content-key-2", "@message", "-o", "@other"]).await;
    assert_eq!(other["error"]["reason"], "other-key");
    let mut spoilt = desk.read("message");
    *spoilt.last_mut().unwrap() ^= 1;
    desk.write("spoilt", spoilt);
    let failed = desk.run(4, &["decrypt", "--local", "@spoilt", "-o", "@other"]).await;
    assert_eq!(failed["error"]["reason"], "unauthentic");
    assert_eq!(desk.run(3, &["decrypt", "--local", "@in", "-o", "@other"]).await["error"]["code"], "MALFORMED_INPUT");
    assert!(!desk.has("other"), "nothing that failed was put in place");
    world.operator().revoke("content-key-1").await.unwrap();
    let refused = desk.run(5, &["decrypt", "--local", "@message", "-o", "@other"]).await;
    assert_eq!(refused["error"]["code"], "REVOKED");
    let refused = desk.run(5, &["encrypt", "--local", "--key", "content-key-1", "@in", "-o", "@other"]).await;
    assert_eq!(refused["error"]["code"], "REVOKED");
    world.check().intact();
}

#[tokio::test]
async fn many_segments_are_one_request_for_keys_and_cannot_be_exchanged() {
    let key_defaults = KeyRotationPolicy { max_uses: 25, ..KeyRotationPolicy::default() };
    let world = World::with(Plan { key_defaults, ..Plan::default() }).await;
    world.operator().generate("content-key-1").await.unwrap();
    let desk = Desk::of(&world, "operator");
    let names: Vec<_> = (0..40).map(|number| format!("seg{number:03}.ts")).collect();
    let mut inputs = Vec::new();
    for (number, name) in names.iter().enumerate() {
        desk.write(name, content(number * 5000));
        inputs.push(format!("@{name}"));
    }
    for dir in ["sealed", "opened"] {
        std::fs::create_dir(desk.path(dir)).unwrap();
    }
    let mut args =
        vec!["encrypt", "--local", "--key", "content-key-1", "--content-id", "reel-3", "--out-dir", "@sealed"];
    args.extend(inputs.iter().map(String::as_str));
    let done = desk.run(0, &args).await;
    assert_eq!((done["done"].as_u64(), done["failed"].as_u64()), (Some(40), Some(0)));
    let checked = world.check().intact();
    let issued = checked.of_type(AuditEventType::KeyUsed).into_iter().filter(|event| {
        let operation = KeyOperation::IssueDataKey;
        matches!(event.body, Some(EventBody::KeyUsed { operation: found, .. }) if found == operation)
            && event.content_id.as_deref() == Some("reel-3")
    });
    assert_eq!(issued.count(), 40, "each segment has a key of its own on the record");
    assert!(checked.key("content-key-1").versions.len() >= 2, "through a rotation");

    std::fs::copy(desk.path("sealed/seg001.ts.tce"), desk.path("sealed/seg002.ts.tce")).unwrap();
    desk.write("sealed/seg003.ts.tce", "no message");
    let messages: Vec<_> = names.iter().map(|name| format!("@sealed/{name}.tce")).collect();
    let mut args = vec!["decrypt", "--local", "--out-dir", "@opened"];
    args.extend(messages.iter().map(String::as_str));
    let done = desk.run(4, &args).await;
    assert_eq!((done["done"].as_u64(), done["failed"].as_u64()), (Some(38), Some(2)));
    assert_eq!(done["files"][2]["error"]["reason"], "other-context");
    for (number, name) in names.iter().enumerate() {
        let file = format!("opened/{name}");
        match number {
            2 | 3 => assert!(!desk.has(&file)),
            _ => assert!(desk.read(&file) == content(number * 5000), "{name}"),
        }
    }
    desk.run(2, &["encrypt", "--local", "--key", "content-key-1", "--out-dir", "@sealed", "@in", "@sealed/in"]).await;
    desk.run(2, &["encrypt", "--key", "content-key-1", "@seg001.ts", "@seg002.ts"]).await;
    world.check().intact();
}
