//! What needs no enclave: identities, policies, key policies, configuration.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use serde_json::json;

use super::{command, confidential};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// OpenSSL as an independent reader, where it is installed.
#[allow(clippy::print_stderr, reason = "whoever runs the tests should know")]
fn openssl(dir: &Path, args: &[&str]) -> Option<String> {
    match Command::new("openssl").current_dir(dir).args(args).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(_) => {
            eprintln!("skipped: openssl is not installed");
            None
        }
    }
}

#[test]
fn a_ca_and_an_identity_are_made_private_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    confidential(dir.path(), ["pki", "init", "--dir", "ca"]).expect(0);
    let made = confidential(dir.path(), ["--json", "pki", "client", "studio/transcoder-1", "--dir", "ca"]).expect(0);
    assert_eq!(made.json(), json!({ "identity": "ca/studio_transcoder-1.pem", "principal": "studio/transcoder-1" }));
    let identity = dir.path().join("ca/studio_transcoder-1.pem");
    assert_eq!((mode(&identity), mode(&dir.path().join("ca/ca.key"))), (0o600, 0o600));
    let parsed = client::session::Identity::from_pem(&fs::read(&identity).unwrap()).unwrap();
    assert_eq!(parsed.name(), Some("studio/transcoder-1"));
    let again = confidential(dir.path(), ["pki", "init", "--dir", "ca"]).expect(3);
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    confidential(dir.path(), ["pki", "client", "studio/transcoder-1", "--dir", "ca"]).expect(3);
    confidential(dir.path(), ["pki", "client", "no spaces", "--dir", "ca"]).expect(2);
    confidential(dir.path(), ["pki", "client", "x", "--dir", "elsewhere"]).expect(3);
    openssl(
        dir.path(),
        &["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca/ca.pem", "ca/studio_transcoder-1.pem"],
    );
}

#[test]
fn an_identity_ends_with_its_ca() {
    let dir = tempfile::tempdir().unwrap();
    confidential(dir.path(), ["pki", "init", "--days", "2"]).expect(0);
    confidential(dir.path(), ["pki", "client", "a", "--days", "900"]).expect(0);
    let end = |file| openssl(dir.path(), &["x509", "-noout", "-enddate", "-in", file]);
    assert_eq!(end("a.pem"), end("ca.pem"));
}

#[test]
fn a_ca_with_the_key_of_another_signs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    confidential(dir.path(), ["pki", "init", "--dir", "a"]).expect(0);
    confidential(dir.path(), ["pki", "init", "--dir", "b"]).expect(0);
    fs::copy(dir.path().join("a/ca.key"), dir.path().join("b/ca.key")).unwrap();
    confidential(dir.path(), ["pki", "client", "x", "--dir", "b"]).expect(3);
}

#[test]
fn a_policy_is_made_signed_shown_and_not_believed_from_another_authority() {
    let dir = tempfile::tempdir().unwrap();
    let made = confidential(dir.path(), ["--json", "policy", "init", "--deployment", "studio"]).expect(0).json();
    let authority = made["policy_authority"].as_str().unwrap();
    assert_eq!(mode(&dir.path().join("authority.key")), 0o600);
    let signed = confidential(dir.path(), ["--json", "policy", "sign", "policy.toml"]).expect(0).json();
    assert_eq!((&signed["document"], &signed["version"]), (&json!("policy.cose"), &json!(1)));
    let shown = confidential(dir.path(), ["--json", "policy", "show", "policy.cose", "--authority", authority]);
    let shown = shown.expect(0).json();
    assert_eq!((&shown["verified"], &shown["deployment"]), (&json!(true), &json!("studio")));
    assert_eq!(shown["grants"][0]["operations"], json!(["encrypt", "decrypt"]));
    confidential(dir.path(), ["policy", "show", "policy.cose", "--authority", "authority.key"]).expect(0);
    let unverified = confidential(dir.path(), ["policy", "show", "policy.cose"]).expect(0);
    assert!(unverified.stdout.starts_with("NOT VERIFIED"), "{}", unverified.stdout);
    confidential(dir.path(), ["policy", "show", "policy.cose", "--authority", &"ab".repeat(32)]).expect(4);
    let mut document = fs::read(dir.path().join("policy.cose")).unwrap();
    document[40] ^= 1;
    fs::write(dir.path().join("policy.cose"), document).unwrap();
    confidential(dir.path(), ["policy", "show", "policy.cose", "--authority", authority]).expect(4);
    if let Some(public) = openssl(dir.path(), &["pkey", "-in", "authority.key", "-noout", "-text"]) {
        let digits: String = public.split("pub:").nth(1).unwrap().chars().filter(char::is_ascii_hexdigit).collect();
        assert_eq!(digits, authority);
    }
}

#[test]
fn a_key_policy_is_generated_passes_the_linter_and_a_loose_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let pcrs = json!({ "0": "0a".repeat(48), "1": "1a".repeat(48), "2": "2a".repeat(48) });
    let measurements = json!({
        "format": "transcode-confidential/measurements/v1",
        "images": [{ "label": "1.0", "pcrs": pcrs }],
    });
    fs::write(dir.path().join("m.json"), measurements.to_string()).unwrap();
    let generate = |format, extra: &[&str]| {
        let arn = "arn:aws:iam::111122223333:role";
        let args = [
            "policy",
            "kms",
            "generate",
            "--measurements",
            "m.json",
            "--format",
            format,
            "--key-arn",
            "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "--role",
            &format!("{arn}/host"),
            "--admin",
            &format!("{arn}/admin"),
        ];
        confidential(dir.path(), args.iter().chain(extra).copied())
    };
    generate("key-policy", &["-o", "key.json"]).expect(0);
    confidential(dir.path(), ["policy", "kms", "lint", "key.json"]).expect(0);
    assert!(generate("terraform", &[]).expect(0).stdout.contains("aws_kms_key_policy"));
    assert!(generate("json", &["--json"]).expect(0).json()["cloudformation"]["Resources"].is_object());
    generate("json", &["--admin", "arn:aws:iam::111122223333:role/host"]).expect(2);
    let loose = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Principal": { "AWS": "*" }, "Action": "kms:*", "Resource": "*" },
    ] });
    fs::write(dir.path().join("loose.json"), loose.to_string()).unwrap();
    let refused = confidential(dir.path(), ["--json", "policy", "kms", "lint", "loose.json"]).expect(4).json();
    assert_eq!(refused["verdict"], "refused");
    assert_eq!(refused["findings"][0]["severity"], "refused");
    fs::write(dir.path().join("none.json"), "[]").unwrap();
    confidential(dir.path(), ["policy", "kms", "lint", "none.json"]).expect(3);
}

#[test]
fn what_is_missing_to_connect_is_named_with_how_to_give_it() {
    let dir = tempfile::tempdir().unwrap();
    let without_server = confidential(dir.path(), ["status"]).expect(2);
    assert!(without_server.stderr.contains("CONFIDENTIAL_SERVER"), "{}", without_server.stderr);
    let server = ["--server", "unix:nobody.sock"];
    let without_identity = confidential(dir.path(), server.into_iter().chain(["status"])).expect(2);
    assert!(without_identity.stderr.contains("pki client"), "{}", without_identity.stderr);
    confidential(dir.path(), ["pki", "init"]).expect(0);
    confidential(dir.path(), ["pki", "client", "me"]).expect(0);
    let with_identity = server.into_iter().chain(["--identity", "me.pem", "status"]);
    let without_image = confidential(dir.path(), with_identity).expect(2);
    assert!(without_image.stderr.contains("--measurements"), "{}", without_image.stderr);
}

#[test]
fn a_server_that_is_not_there_is_unavailable_wherever_its_address_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    confidential(dir.path(), ["pki", "init"]).expect(0);
    confidential(dir.path(), ["pki", "client", "me"]).expect(0);
    let gone = confidential(
        dir.path(),
        ["--json", "--server", "unix:nobody.sock", "--identity", "me.pem", "--any-image", "status"],
    );
    let gone = gone.expect(6).json();
    assert_eq!((&gone["error"]["code"], &gone["error"]["retryable"]), (&json!("UNAVAILABLE"), &json!(true)));
    assert_eq!(gone["error"]["reason"], "unreachable");
    let by_variables = command(dir.path(), ["--any-image", "keys", "list"])
        .env("CONFIDENTIAL_SERVER", "unix:nobody.sock")
        .env("CONFIDENTIAL_IDENTITY", "me.pem")
        .output()
        .unwrap();
    assert_eq!(by_variables.status.code(), Some(6));
    fs::write(dir.path().join("client.toml"), "server = 'unix:nobody.sock'\nidentity = 'me.pem'\n").unwrap();
    let by_file =
        command(dir.path(), ["--any-image", "status"]).env("CONFIDENTIAL_CONFIG", "client.toml").output().unwrap();
    assert_eq!(by_file.status.code(), Some(6));
    fs::write(dir.path().join("client.toml"), "sever = 'unix:nobody.sock'\n").unwrap();
    let wrong =
        command(dir.path(), ["--any-image", "status"]).env("CONFIDENTIAL_CONFIG", "client.toml").output().unwrap();
    assert_eq!(wrong.status.code(), Some(3));
    assert!(!dir.path().join(".local").exists(), "nothing is remembered of a server that was never reached");
}

#[test]
fn content_that_cannot_be_sent_leaves_no_output() {
    let dir = tempfile::tempdir().unwrap();
    confidential(dir.path(), ["pki", "init"]).expect(0);
    confidential(dir.path(), ["pki", "client", "me"]).expect(0);
    fs::write(dir.path().join("in"), "content").unwrap();
    let base = ["--server", "unix:nobody.sock", "--identity", "me.pem", "--any-image", "encrypt", "--key", "k"];
    confidential(dir.path(), base.into_iter().chain(["in", "-o", "out"])).expect(6);
    confidential(dir.path(), base.into_iter().chain(["missing", "-o", "out"])).expect(3);
    confidential(dir.path(), base.into_iter().chain(["in", "-o", "no/such/dir/out"])).expect(3);
    confidential(dir.path(), base.into_iter().chain(["--json", "in"])).expect(2);
    confidential(dir.path(), base.into_iter().chain(["--context", "novalue", "in"])).expect(2);
    confidential(dir.path(), base.into_iter().chain(["--context", "aws-crypto-x=1", "in", "-o", "out"])).expect(2);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name != "out" && !name.to_str().unwrap().contains("confidential")), "{left:?}");
}

#[test]
fn whoever_is_interrupted_leaves_no_file_behind() {
    let dir = tempfile::tempdir().unwrap();
    confidential(dir.path(), ["pki", "init"]).expect(0);
    confidential(dir.path(), ["pki", "client", "me"]).expect(0);
    fs::write(dir.path().join("in"), "content").unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    // A server that takes connections and never says a word.
    let _silent = std::os::unix::net::UnixListener::bind(dir.path().join("s.sock")).unwrap();
    let args = ["--server", "unix:s.sock", "--identity", "me.pem", "--any-image", "encrypt", "--key", "k", "in", "-o"];
    let mut child = command(dir.path(), args.into_iter().chain(["out/message"])).spawn().unwrap();
    let files = || fs::read_dir(dir.path().join("out")).unwrap().count();
    while files() == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it should wait for the server");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(files(), 0);
}
