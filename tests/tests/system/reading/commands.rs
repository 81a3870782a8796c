//! The command line over the live log, beside itself over the stored one.

use serde_json::json;

use super::written;
use crate::desk::Desk;

#[tokio::test]
async fn the_command_line_queries_the_live_log_as_it_queries_a_stored_one() {
    let world = written().await;
    let desk = Desk::of(&world, "operator");
    let size = desk.run(0, &["audit", "checkpoint"]).await["state"]["size"].as_u64().unwrap();
    world.check_until(|checked| checked.events.len() as u64 >= size).await;
    let stored = world.segments_dir();
    let stored = stored.to_str().unwrap();
    let queries: &[&[&str]] = &[
        &[],
        &["--type", "KeyUsed"],
        &["--severity", "warning"],
        &["--key", "content-key-1"],
        &["--principal", "operator"],
        &["--epoch", "2"],
        &["--text", "REFUSED"],
        &["--after", "4"],
        &["--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00Z"],
        &["--last", "--limit", "3"],
    ];
    for query in queries {
        let list = |dir: &[&'static str]| [&["audit", "list"], dir, query].concat();
        // The log may have grown since; what was there is the same.
        let live = desk.run(0, &list(&[])).await;
        let args = [&["audit", "list", stored][..], query].concat();
        let offline = desk.run(0, &args).await;
        assert_eq!((&live["verified"], &live["source"]), (&json!(true), &json!("server")));
        assert_eq!(live["log_id"], offline["log_id"]);
        assert_eq!(live["events"], offline["events"], "{query:?}");
    }
    let live = desk.run(0, &["audit", "show", "3"]).await;
    assert_eq!(live["event"]["leaf"], desk.run(0, &["audit", "show", stored, "3"]).await["event"]["leaf"]);
    assert_eq!(desk.run(0, &["audit", "stats"]).await["keys"], desk.run(0, &["audit", "stats", stored]).await["keys"]);
    assert_eq!(desk.run(3, &["audit", "show", "100000"]).await["error"]["code"], "MALFORMED_INPUT");
    let stranger = Desk::of(&world, "transcoder");
    let denied = stranger.run(5, &["audit", "list"]).await;
    assert_eq!(denied["error"]["code"], "DENIED");
    let message = denied["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("denied: not granted") && !message.contains("DENIED"), "{message}");
}

#[tokio::test]
async fn proofs_from_the_live_service_are_those_of_the_stored_log_and_a_receipt_stands_for_the_grant() {
    let world = written().await;
    let desk = Desk::of(&world, "operator");
    desk.run(0, &["audit", "checkpoint", "-o", "@old"]).await;
    world.operator().encrypt("content-key-1", b"frame").await.unwrap();
    let grown = desk.run(0, &["audit", "checkpoint", "-o", "@new"]).await;
    let size = grown["state"]["size"].as_u64().unwrap();
    world.check_until(|checked| checked.events.len() as u64 >= size).await;
    let stored = world.segments_dir();
    let stored = stored.to_str().unwrap();
    let live = desk.run(0, &["audit", "prove", "--event", "3", "--checkpoint", "@old"]).await;
    let offline = desk.run(0, &["audit", "prove", stored, "--event", "3", "--checkpoint", "@old"]).await;
    assert_eq!(live["proof"], offline["proof"]);
    let live = desk.run(0, &["audit", "consistency", "--old", "@old", "--new", "@new"]).await;
    let offline = desk.run(0, &["audit", "consistency", stored, "--old", "@old", "--new", "@new"]).await;
    assert_eq!((&live["proof"], &live["old"]), (&offline["proof"], &offline["old"]));
    assert_eq!(desk.run(0, &["audit", "consistency", "--old", "@old"]).await["old"]["size"], live["old"]["size"]);
    let cose = desk.run(0, &["audit", "prove", "--event", "3", "--format", "cose", "-o", "@3.cose"]).await;
    assert!(cose["size"].as_u64().unwrap() >= size && desk.path("3.cose").exists());
    assert_eq!(
        desk.run(2, &["audit", "prove", stored, "--event", "3", "--format", "cose"]).await["error"]["code"],
        "USAGE"
    );
    // Somebody who may not read, and has the receipt of what it did.
    let transcoder = Desk::of(&world, "transcoder");
    std::fs::write(transcoder.path("in"), b"frame").unwrap();
    let encrypt = ["encrypt", "--key", "content-key-1", "@in", "-o", "@out", "--receipt", "@receipt"];
    transcoder.run(0, &encrypt).await;
    let text = std::fs::read_to_string(transcoder.path("receipt")).unwrap();
    let receipt: transcode_confidential::protocol::api::ReceiptText = text.trim().parse().unwrap();
    let event = receipt.0.sequence.to_string();
    assert_eq!(transcoder.run(5, &["audit", "prove", "--event", &event]).await["error"]["code"], "DENIED");
    let proven = transcoder.run(0, &["audit", "prove", "--event", &event, "--receipt", "@receipt"]).await;
    assert_eq!(proven["event"], receipt.0.sequence.0);
    let cose = ["audit", "prove", "--event", &event, "--receipt", "@receipt", "--format", "cose"];
    assert_eq!(transcoder.run(0, &cose).await["event"], receipt.0.sequence.0);
    // A checkpoint of another history.
    let note = std::fs::read_to_string(desk.path("old")).unwrap();
    std::fs::write(desk.path("changed"), note.replacen("\n1", "\n2", 1)).unwrap();
    let refused = desk.run(4, &["audit", "consistency", "--old", "@changed"]).await;
    assert_eq!(refused["error"]["reason"], "checkpoint-wrong");
}
