//! `confidential audit verify` on directories that hold no log or a broken one; whole logs are verified where enclaves
//! write them, in the integration tests.

use std::fs;

use serde_json::{Value, json};

use super::confidential;

const SEGMENT: &str = "00000000000000000000-0000000001.seg";

#[test]
fn a_directory_without_a_log_is_unreadable_input() {
    let dir = tempfile::tempdir().unwrap();
    let verify = |path| confidential(dir.path(), ["--json", "audit", "verify", "--any-image", path]);
    assert_eq!(verify(".").expect(3).json()["error"]["code"], "FILE");
    verify("missing").expect(3);
    fs::write(dir.path().join("other.seg"), "not by name").unwrap();
    verify(".").expect(3);
    confidential(dir.path(), ["audit", "verify", "."]).expect(2);
}

#[test]
fn help_and_version_are_no_failures_and_a_wrong_word_is_a_wrong_use() {
    let dir = tempfile::tempdir().unwrap();
    assert!(confidential(dir.path(), ["--help"]).expect(0).stdout.contains("attestation"));
    assert!(confidential(dir.path(), ["--version"]).expect(0).stdout.starts_with("confidential "));
    confidential(dir.path(), ["attestation"]).expect(2);
    let wrong = confidential(dir.path(), ["--json", "atestation"]).expect(2);
    assert_eq!(wrong.json()["error"]["exit"], 2);
}

#[test]
fn a_file_that_is_no_segment_is_damaged_and_the_object_has_every_member() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(SEGMENT), vec![7; 400]).unwrap();
    let verdict = confidential(dir.path(), ["--json", "audit", "verify", "--any-image", "."]).expect(4).json();
    assert_eq!(
        (&verdict["verdict"], &verdict["events"], &verdict["epochs"]),
        (&json!("damaged"), &json!(0), &json!(0))
    );
    assert_eq!((&verdict["head"], &verdict["first_bad"]["segment"]), (&Value::Null, &json!(SEGMENT)));
    assert!(verdict["notes"].as_array().unwrap().contains(&json!("unanchored")));
    let text = confidential(dir.path(), ["audit", "verify", "--any-image", "."]).expect(4).stdout;
    assert!(text.starts_with(&format!("DAMAGED: {SEGMENT}")), "{text}");
}

#[test]
fn evidence_that_is_none_is_malformed_input() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(SEGMENT), "x").unwrap();
    fs::write(dir.path().join("evidence"), "hello").unwrap();
    for option in ["--receipt", "--checkpoint"] {
        confidential(dir.path(), ["audit", "verify", "--any-image", ".", option, "evidence"]).expect(3);
        confidential(dir.path(), ["audit", "verify", "--any-image", ".", option, "missing"]).expect(3);
    }
}
