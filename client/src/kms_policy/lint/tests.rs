use serde_json::{Value, json};
use transcode_confidential::{
    attestation::{ExpectedImage, Measurements, PcrIndex, PcrValue},
    time::Timestamp,
};

use super::*;
use crate::kms_policy::PolicyRequest;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const ROLE: &str = "arn:aws:iam::111122223333:role/enclave";
const ADMIN: &str = "arn:aws:iam::111122223333:role/admin";

fn image(label: &str, seed: u8, not_after: Option<Timestamp>) -> ExpectedImage {
    let pcrs = (0..3).map(|index| (PcrIndex::new(index).unwrap(), PcrValue::new([seed + index; 48]))).collect();
    ExpectedImage::new(label, not_after, pcrs).unwrap()
}

fn good() -> Value {
    let images = vec![image("old", 10, Some(Timestamp::from_secs(2_000_000_000))), image("new", 20, None)];
    PolicyRequest::new(&Measurements::new(images).unwrap(), KEY, ROLE, &[ADMIN]).unwrap().key_policy().unwrap()
}

/// Rules that refuse, for a policy of which one statement was changed.
fn refused(policy: &Value) -> Vec<&'static str> {
    lint(policy).unwrap().into_iter().filter(Finding::is_refused).map(|finding| finding.rule).collect()
}

/// The good policy with one more statement.
fn with(statement: Value) -> Value {
    let mut policy = good();
    policy["Statement"].as_array_mut().unwrap().push(statement);
    policy
}

/// The good policy whose first Allow has other conditions.
fn with_condition(condition: Value) -> Value {
    let mut policy = good();
    policy["Statement"][0]["Condition"] = condition;
    policy
}

fn digest(byte: u8) -> String {
    PcrValue::new([byte; 48]).to_string()
}

fn equal(pcrs: &[(&str, Value)]) -> Value {
    let keyed = pcrs.iter().map(|(name, value)| (format!("kms:RecipientAttestation:{name}"), value.clone()));
    json!({ "StringEqualsIgnoreCase": Value::Object(keyed.collect()) })
}

#[test]
fn what_we_generate_is_not_refused_and_warns_of_the_administrators_alone() {
    let findings = lint(&good()).unwrap();
    let rules: Vec<_> = findings.iter().map(|finding| (finding.severity, finding.rule)).collect();
    assert_eq!(rules, [(Severity::Warning, "rewriters")]);
    assert!(findings[0].mend.contains("EventBridge"));
}

#[test]
fn the_default_policy_of_aws_is_refused() {
    let default = json!({
        "Version": "2012-10-17",
        "Id": "key-default-1",
        "Statement": {
            "Sid": "Enable IAM User Permissions",
            "Effect": "Allow",
            "Principal": { "AWS": "arn:aws:iam::111122223333:root" },
            "Action": "kms:*",
            "Resource": "*",
        },
    });
    assert_eq!(refused(&default), ["account-root", "way-around", "unattested"]);
    let mut by_number = default;
    by_number["Statement"]["Principal"]["AWS"] = json!(["111122223333", ROLE]);
    assert_eq!(refused(&by_number), ["account-root", "way-around", "unattested"]);
}

#[test]
fn every_disclosing_action_needs_the_condition_however_it_is_spelt() {
    for action in [
        "kms:Decrypt",
        "KMS:DECRYPT",
        "kms:Dec*",
        "kms:GenerateDataKeyPairWithoutPlaintext",
        "kms:Generate*",
        "kms:DeriveSharedSecret",
        "kms:De*",
        "kms:?ecrypt",
    ] {
        let statement = json!({
            "Effect": "Allow", "Principal": { "AWS": ROLE }, "Action": ["kms:DescribeKey", action], "Resource": "*",
        });
        assert_eq!(refused(&with(statement)), ["unattested"], "{action}");
    }
    let service = json!({
        "Effect": "Allow", "Principal": { "Service": "ec2.amazonaws.com" }, "Action": "kms:Decrypt", "Resource": "*",
    });
    assert_eq!(refused(&with(service)), ["unattested"]);
}

#[test]
fn every_way_around_is_refused() {
    for action in
        ["kms:CreateGrant", "kms:ReEncryptFrom", "kms:ReEncrypt*", "kms:ReplicateKey", "kms:Encrypt", "kms:Import*"]
    {
        let statement = json!({
            "Effect": "Allow", "Principal": { "AWS": ADMIN }, "Action": action, "Resource": "*",
            "Condition": { "Bool": { "kms:GrantIsForAWSResource": true } },
        });
        assert_eq!(refused(&with(statement)), ["way-around"], "{action}");
    }
}

#[test]
fn an_allow_by_exclusion_is_refused() {
    let not_action = json!({
        "Effect": "Allow", "Principal": { "AWS": ADMIN }, "NotAction": "kms:Decrypt", "Resource": "*",
    });
    assert!(refused(&with(not_action)).contains(&"not-action"));
    let not_principal = json!({
        "Effect": "Allow", "NotPrincipal": { "AWS": ADMIN }, "Action": "kms:DescribeKey", "Resource": "*",
    });
    assert_eq!(refused(&with(not_principal)), ["not-principal"]);
    let anyone = json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:PutKeyPolicy", "Resource": "*" });
    assert_eq!(refused(&with(anyone)), ["anyone"]);
}

#[test]
fn an_image_needs_all_of_its_registers_with_one_value_each() {
    let (a, b, c) = (json!(digest(1)), json!(digest(2)), json!(digest(3)));
    let whole = [("PCR0", a.clone()), ("PCR1", b.clone()), ("PCR2", c.clone())];
    let cases = [
        (equal(&whole), vec![]),
        (equal(&[("imagesha384", a.clone()), ("pcr1", b.clone()), ("PCR2", c.clone())]), vec![]),
        (equal(&[&whole[..], &[("PCR3", a.clone())]].concat()), vec![]),
        (equal(&[("ImageSha384", a.clone())]), vec!["image-sha384-alone"]),
        (equal(&[("PCR0", a.clone())]), vec!["incomplete-image"]),
        (equal(&[("PCR1", b.clone()), ("PCR2", c.clone())]), vec!["incomplete-image"]),
        (equal(&[("PCR3", a.clone())]), vec!["no-image"]),
        (equal(&[("PCR4", a.clone())]), vec!["no-image"]),
        (equal(&[("PCR8", a.clone())]), vec!["no-image"]),
        (equal(&[("PCR0", json!([a, b])), whole[1].clone(), whole[2].clone()]), vec!["mixed-list", "incomplete-image"]),
        (equal(&[("PCR0", json!(digest(0))), whole[1].clone(), whole[2].clone()]), vec!["zeros", "incomplete-image"]),
        (
            equal(&[("PCR0", json!("abc")), whole[1].clone(), whole[2].clone()]),
            vec!["not-a-digest", "incomplete-image"],
        ),
        (equal(&[&whole[..], &[("PCR32", a.clone())]].concat()), vec!["unknown-register"]),
        (json!({}), vec!["unattested"]),
        (json!({ "StringEquals": { "aws:SourceVpce": "vpce-1" } }), vec!["unattested"]),
    ];
    for (condition, expected) in cases {
        assert_eq!(refused(&with_condition(condition.clone())), expected, "{condition}");
    }
}

#[test]
fn operators_that_hold_without_a_document_are_refused() {
    let (a, b, c) = (digest(1), digest(2), digest(3));
    let keys = json!({
        "kms:RecipientAttestation:PCR0": a, "kms:RecipientAttestation:PCR1": b, "kms:RecipientAttestation:PCR2": c,
    });
    for (operator, rule) in [
        ("StringEqualsIfExists", "if-exists"),
        ("StringEqualsIgnoreCaseIfExists", "if-exists"),
        ("ForAnyValue:StringEquals", "set-operator"),
        ("ForAllValues:StringEqualsIgnoreCase", "set-operator"),
        ("StringLike", "not-an-equality"),
        ("StringNotEquals", "not-an-equality"),
        ("ArnEquals", "not-an-equality"),
        ("Null", "not-an-equality"),
    ] {
        let found = refused(&with_condition(json!({ operator: keys.clone() })));
        assert!(found.contains(&rule) && found.contains(&"unattested"), "{operator} {found:?}");
    }
}

#[test]
fn a_deny_that_needs_all_registers_to_differ_is_refused() {
    let mut policy = good();
    let (a, b) = (digest(1), digest(2));
    policy["Statement"][2]["Condition"] = json!({
        "StringNotEqualsIgnoreCase": { "kms:RecipientAttestation:PCR0": [a], "kms:RecipientAttestation:PCR1": [b] },
    });
    assert_eq!(refused(&policy), ["deny-needs-all"]);
    assert!(lint(&policy).unwrap().iter().any(|finding| finding.rule == "no-explicit-deny"));
}

#[test]
fn missing_denials_are_warned_of() {
    for (number, rule) in
        [(2, "no-explicit-deny"), (3, "no-explicit-deny"), (4, "no-explicit-deny"), (5, "ways-around-open")]
    {
        let mut policy = good();
        policy["Statement"].as_array_mut().unwrap().remove(number);
        let findings = lint(&policy).unwrap();
        assert!(findings.iter().any(|finding| finding.rule == rule && !finding.is_refused()), "{number}");
        assert_eq!(refused(&policy), Vec::<&str>::new());
    }
}

#[test]
fn what_is_no_policy_is_said_to_be_none() {
    for text in [
        json!(null),
        json!({ "Statement": [] }),
        json!({ "Statement": [{ "Effect": "Maybe", "Principal": "*", "Action": "*" }] }),
        json!({ "Statement": [{ "Effect": "Allow", "Action": "*" }] }),
        json!({ "Statement": [{ "Effect": "Allow", "Principal": "*" }] }),
        json!({ "Statement": [{ "Effect": "Allow", "Principal": "*", "Action": [7, {}] }] }),
        json!({ "Statement": [{ "Effect": "Allow", "Principal": "*", "Action": "*", "Condition": [] }] }),
    ] {
        assert!(lint(&text).is_err(), "{text}");
    }
}

#[test]
fn every_finding_says_why_and_how_to_mend_it() {
    let default = json!({ "Statement": { "Effect": "Allow", "Principal": "*", "NotAction": "x", "Resource": "*" } });
    for finding in lint(&default).unwrap() {
        assert!(finding.why.ends_with('.') && finding.mend.ends_with('.'), "{finding}");
        assert!(finding.to_string().starts_with(if finding.is_refused() { "refused [" } else { "warning [" }));
    }
}
