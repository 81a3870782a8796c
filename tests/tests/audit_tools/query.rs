use serde_json::{Value, json};

use crate::desk::{Desk, HOSTILE};

fn sequences(listed: &Value) -> Vec<u64> {
    listed["events"].as_array().unwrap().iter().map(|event| event["sequence"].as_u64().unwrap()).collect()
}

#[test]
fn every_filter_selects_exactly_its_events() {
    let desk = Desk::new();
    let all = desk.json(0, &["list", "@log"]);
    let size = desk.log.chain().size();
    assert_eq!((sequences(&all), &all["cut"], &all["verified"]), ((0..size).collect(), &json!(false), &json!(true)));
    let time = |at: usize| all["events"][at]["time"].as_str().unwrap().to_owned();
    let select = |args: &[&str]| {
        let args: Vec<_> = ["list", "@log"].iter().chain(args).copied().collect();
        sequences(&desk.json(0, &args))
    };
    assert_eq!(select(&["--type", "EnclaveCreated", "--type", "key-revoked"]), [0, 4, 9]);
    assert_eq!(select(&["--severity", "warning"]), [9, 10]);
    assert_eq!(select(&["--severity", "critical"]), [10]);
    assert_eq!(select(&["--key", "film-1"]), [1, 5]);
    assert_eq!(select(&["--key", "film"]), [] as [u64; 0]);
    assert_eq!(select(&["--principal", "admin-1"]), [6]);
    assert_eq!(select(&["--content", "scene-4"]), [7]);
    assert_eq!(select(&["--epoch", "2", "--type", "keyused"]), [5, 7]);
    assert_eq!(select(&["--since", &time(2), "--until", &time(4)]), [2, 3]);
    assert_eq!(select(&["--text", "SCENE"]), [7]);
    assert_eq!(select(&["--text", "ONERROR"]), [10]);
    assert_eq!(select(&["--after", "8"]), [9, 10]);
    assert_eq!(select(&["--key", "reel-1", "--severity", "warning"]), [9]);
}

#[test]
fn a_list_that_is_cut_says_so_and_how_to_go_on() {
    let desk = Desk::new();
    let first = desk.json(0, &["list", "@log", "--limit", "3"]);
    assert_eq!((sequences(&first), &first["cut"], &first["matched"]), (vec![0, 1, 2], &json!(true), &json!(11)));
    assert_eq!(sequences(&desk.json(0, &["list", "@log", "--limit", "2", "--last"])), [9, 10]);
    let (_, _, err) = desk.run(&["list", "@log", "--limit", "3"]);
    assert!(err.contains("note: 3 of 11 events; --after 2 goes on"), "{err}");
}

#[test]
fn nothing_of_a_log_that_is_not_intact_is_shown_unless_the_caller_says_danger() {
    let desk = Desk::new();
    desk.flip_a_byte();
    for verb in [&["list", "@log"][..], &["show", "@log", "1"], &["stats", "@log"]] {
        let refused = desk.json(4, verb);
        assert_eq!(refused["error"]["reason"], "damaged", "{refused}");
        assert!(refused.get("events").is_none() && refused.get("event").is_none());
        let (code, out, _) = desk.run(verb);
        assert_eq!((code, out.as_str()), (4, ""));
    }
    let listed = desk.json(0, &["list", "@log", "--danger-unverified"]);
    assert_eq!((&listed["verified"], &listed["verdict"]), (&json!(false), &Value::Null));
    assert!(sequences(&listed).len() >= 6, "{listed}");
    let (_, _, err) = desk.run(&["list", "@log", "--danger-unverified"]);
    assert!(err.contains("UNVERIFIED"), "{err}");
}

#[test]
fn a_receipt_of_more_than_the_log_has_refuses_its_events() {
    let mut desk = Desk::new();
    desk.log.batch(vec![testkit::log_maker::used("film-1", 2)]);
    std::fs::write(desk.path("receipt"), desk.log.receipts.last().unwrap().to_bytes()).unwrap();
    assert_eq!(desk.json(4, &["list", "@log", "--receipt", "@receipt"])["error"]["reason"], "truncated");
    desk.store();
    assert_eq!(desk.json(0, &["list", "@log", "--receipt", "@receipt"])["notes"], json!([]));
}

#[test]
fn one_event_shows_its_body_its_records_and_a_leaf_that_hashes_to_its_hash() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let desk = Desk::new();
    let event = &desk.json(0, &["show", "@log", "4"])["event"];
    let leaf = STANDARD.decode(event["leaf"].as_str().unwrap()).unwrap();
    let hash = transcode_confidential::audit::leaf_hash(&leaf).to_string();
    assert_eq!((event["hash"].as_str().unwrap(), &event["body"]["kind"]), (hash.as_str(), &json!("epoch_opened")));
    let kinds: Vec<_> = event["records"].as_array().unwrap().iter().map(|record| &record["kind"]).collect();
    assert_eq!(kinds, ["Attestation", "WrappedKey"]);
    assert_eq!(desk.json(3, &["show", "@log", "11"])["error"]["code"], "MALFORMED_INPUT");
}

#[test]
fn no_control_character_of_an_event_reaches_a_terminal() {
    let desk = Desk::new();
    for verb in [&["list", "@log"][..], &["show", "@log", "10"], &["stats", "@log"]] {
        let (code, out, _) = desk.run(verb);
        assert_eq!(code, 0);
        assert!(!out.contains(['\u{1b}', '\u{202e}', '\r']), "{out:?}");
        assert!(out.contains("\\u{1b}[31m"), "{out}");
    }
    let (_, out, _) = desk.run(&["list", "@log"]);
    assert_eq!(out.lines().count(), 11, "one line an event");
    assert_eq!(desk.json(0, &["show", "@log", "10"])["event"]["principal"], HOSTILE, "programs get it as it is");
}

#[test]
fn counts_add_up_and_a_refused_name_makes_no_key() {
    let desk = Desk::new();
    let stats = desk.json(0, &["stats", "@log"]);
    assert_eq!((&stats["events"], &stats["refusals"]), (&json!(11), &json!(3)));
    assert_eq!(stats["types"]["KeyUsed"], 4);
    assert_eq!(stats["severities"], json!({ "Info": 9, "Warning": 1, "Critical": 1 }));
    assert_eq!(stats["keys"].as_object().unwrap().keys().collect::<Vec<_>>(), ["film-1", "film-2", "reel-1"]);
    assert_eq!(stats["keys"]["film-1"]["versions"]["2"]["uses"], 1);
    let reel = &stats["keys"]["reel-1"];
    assert_eq!((&reel["change"], &reel["versions"]["1"]["max_uses"]), (&json!("revoked"), &json!(10)));
    assert_eq!(stats["principals"][HOSTILE]["critical"], 1);
    assert_eq!((&stats["bytes_in"], &stats["bytes_out"]), (&json!(1000), &json!(1100)));
    assert_eq!(desk.json(0, &["stats", "@log", "--severity", "critical"])["events"], 1);
}
