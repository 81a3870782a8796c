//! `confidential attestation` on genuine documents. The corpus is not part of the repository: `CONFIDENTIAL_CORPUS` names
//! its directory, and without it the tests that need it say that they are skipped.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::confidential;

const MEASUREMENTS: &str = "transcode-confidential/measurements/v1";

#[allow(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "where the corpus is; whoever runs this should know"
)]
fn corpus(kind: &str) -> Vec<PathBuf> {
    let Some(root) = std::env::var_os("CONFIDENTIAL_CORPUS") else {
        eprintln!("skipped: CONFIDENTIAL_CORPUS is not set");
        return Vec::new();
    };
    let dir = PathBuf::from(root).join("attestation").join(kind);
    let files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    files
}

#[test]
fn every_production_document_is_verified_at_its_own_time_and_expired_now() {
    let dir = tempfile::tempdir().unwrap();
    for file in corpus("production") {
        let path = file.to_str().unwrap();
        let then =
            confidential(dir.path(), ["--json", "attestation", "verify", "--any-image", "--at", "document", path])
                .expect(0)
                .json();
        assert_eq!(
            (&then["verdict"], &then["image"], &then["reason"]),
            (&json!("verified"), &json!("unchecked"), &Value::Null)
        );
        assert!(then["module_id"].as_str().unwrap().starts_with("i-"));
        assert_eq!(then["pcrs"]["0"].as_str().unwrap().len(), 96);
        assert_eq!(then["root"]["aws"], true);
        let now = confidential(dir.path(), ["attestation", "verify", "--any-image", "--json", path]).expect(4).json();
        assert_eq!((&now["verdict"], &now["reason"]), (&json!("refused"), &json!("certificate-expired")));
        assert_eq!((&now["module_id"], &now["unverified"]["module_id"]), (&Value::Null, &then["module_id"]));
        let second = then["timestamp"].as_str().unwrap();
        confidential(dir.path(), ["attestation", "verify", "--any-image", "--at", second, path]).expect(0);
    }
}

#[test]
fn debug_and_foreign_documents_are_refused_for_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, always) in [("debug", Some("debug-mode")), ("refuse", None)] {
        for file in corpus(kind) {
            let path = file.to_str().unwrap();
            let verdict =
                confidential(dir.path(), ["--json", "attestation", "verify", "--any-image", "--at", "document", path])
                    .expect(4)
                    .json();
            assert_eq!(verdict["verdict"], "refused", "{path}");
            let reason = verdict["reason"].as_str().unwrap();
            assert!(always.is_none_or(|always| always == reason), "{path}: {reason}");
            assert!(!path.contains("nitrotpm") || reason == "not-an-enclave", "{path}: {reason}");
        }
    }
}

#[test]
fn the_image_decides_where_measurements_are_given() {
    let dir = tempfile::tempdir().unwrap();
    for file in corpus("production").into_iter().take(2) {
        let path = file.to_str().unwrap();
        let shown = confidential(dir.path(), ["--json", "attestation", "show", path]).expect(0).json();
        assert_eq!(shown["verified"], false);
        let mut pcrs = json!({ "0": shown["pcrs"]["0"], "1": shown["pcrs"]["1"], "2": shown["pcrs"]["2"] });
        let write = |pcrs: &Value| {
            let file = json!({ "format": MEASUREMENTS, "images": [{ "label": "release 7", "pcrs": pcrs }] });
            fs::write(dir.path().join("m.json"), file.to_string()).unwrap();
        };
        write(&pcrs);
        let args = ["--json", "attestation", "verify", "--measurements", "m.json", "--at", "document", path];
        let right = confidential(dir.path(), args).expect(0).json();
        assert_eq!((&right["image"], &right["label"]), (&json!("expected"), &json!("release 7")));
        let text = confidential(dir.path(), &args[1..]).expect(0).stdout;
        assert!(text.starts_with("VERIFIED at its own signed time") && text.contains("release 7 (expected)"), "{text}");
        assert!(text.contains("checked") && text.contains("not checked age"), "{text}");
        pcrs["2"] = "ab".repeat(48).into();
        write(&pcrs);
        let wrong = confidential(dir.path(), args).expect(4).json();
        assert_eq!((&wrong["reason"], &wrong["image"]), (&json!("unexpected-image"), &json!("unexpected")));
    }
}

#[test]
fn what_is_no_document_is_refused_and_what_is_no_file_is_unreadable() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [("empty", &b""[..]), ("garbage", b"\x84\x44\xa1\x01\x38\x22"), ("text", b"hello")] {
        fs::write(dir.path().join(name), content).unwrap();
        let verdict =
            confidential(dir.path(), ["--json", "attestation", "verify", "--any-image", name]).expect(4).json();
        assert_eq!((&verdict["verdict"], &verdict["pcrs"]), (&json!("refused"), &Value::Null));
        confidential(dir.path(), ["attestation", "show", name]).expect(3);
    }
    let missing = confidential(dir.path(), ["--json", "attestation", "verify", "--any-image", "missing"]).expect(3);
    assert_eq!(missing.json()["error"]["code"], "FILE");
    assert!(missing.stderr.contains("missing"), "{}", missing.stderr);
    confidential(dir.path(), ["attestation", "verify", "--any-image", "."]).expect(3);
}

#[test]
fn nobody_gets_any_image_without_having_asked_for_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("d"), "x").unwrap();
    let refused = confidential(dir.path(), ["attestation", "verify", "d"]).expect(2);
    assert!(refused.stderr.contains("--measurements") && refused.stderr.contains("--any-image"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
    confidential(dir.path(), ["attestation", "verify", "d", "--any-image", "--measurements", "m.json"]).expect(2);
    fs::write(dir.path().join("m.json"), "{}").unwrap();
    confidential(dir.path(), ["attestation", "verify", "d", "--measurements", "m.json"]).expect(3);
    fs::write(dir.path().join("root.pem"), "nonsense").unwrap();
    confidential(dir.path(), ["attestation", "verify", "d", "--any-image", "--root", "root.pem"]).expect(3);
}

#[test]
fn a_time_that_is_none_is_a_wrong_use() {
    let dir = tempfile::tempdir().unwrap();
    let wrong =
        confidential(dir.path(), ["--json", "attestation", "verify", "--any-image", "--at", "noon", "d"]).expect(2);
    assert_eq!(wrong.json()["error"]["code"], "USAGE");
    assert!(wrong.stderr.contains("2026-01-31T12:00:00Z"), "{}", wrong.stderr);
}
