//! The mock's policy engine, and what the key policies that we generate allow and deny under it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

#[path = "kms/setting.rs"]
#[allow(dead_code, reason = "shared with the tests of the KMS client")]
mod setting;

use std::{collections::BTreeMap, time::Duration};

use client::kms_policy::{Finding, PolicyRequest, lint};
use serde_json::{Value, json};
use setting::{NOW, ROLE, Setting, content};
use testkit::{
    kms::policy::{Decision, Kind, Policy, Request, decide},
    nsm::{MockImage, Mode},
};
use transcode_confidential::attestation::{ExpectedImage, Measurements, PcrIndex, PcrValue, Pcrs};

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const ENCLAVE: &str = "arn:aws:iam::111122223333:role/enclave";
const ADMIN: &str = "arn:aws:iam::111122223333:role/admin";

fn request(role: &str, action: &str, pcrs: &[(&str, &str)]) -> Request {
    let context = pcrs
        .iter()
        .map(|(name, value)| (format!("kms:RecipientAttestation:{name}"), vec![(*value).to_owned()]))
        .chain([("aws:CurrentTime".to_owned(), vec!["2026-01-31T12:00:00Z".to_owned()])])
        .collect::<BTreeMap<_, _>>();
    Request {
        role_arn: role.to_owned(),
        session_arn: role.replace(":iam:", ":sts:").replace("role/", "assumed-role/") + "/session",
        account: "111122223333".to_owned(),
        action: action.to_owned(),
        resource: (action != "kms:GenerateRandom").then(|| KEY.to_owned()),
        context,
    }
}

fn policy(statements: Value) -> Policy {
    Policy::parse(json!({ "Statement": statements })).unwrap()
}

fn allow(extra: Value) -> Value {
    let mut statement =
        json!({ "Effect": "Allow", "Principal": { "AWS": ENCLAVE }, "Action": "kms:Decrypt", "Resource": "*" });
    statement.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    statement
}

mod engine {
    use super::*;

    fn decrypt(policy: &Policy, pcrs: &[(&str, &str)]) -> Decision {
        decide(Some(policy), None, &request(ENCLAVE, "kms:Decrypt", pcrs))
    }

    #[test]
    fn what_nothing_allows_is_denied() {
        let nothing = policy(json!([]));
        assert_eq!(decrypt(&nothing, &[]), Decision::NotAllowed(Kind::Resource));
        let other_role = decide(Some(&policy(json!(allow(json!({}))))), None, &request(ADMIN, "kms:Decrypt", &[]));
        assert_eq!(other_role, Decision::NotAllowed(Kind::Resource));
        let other_action = decide(Some(&policy(json!(allow(json!({}))))), None, &request(ENCLAVE, "kms:Encrypt", &[]));
        assert_eq!(other_action, Decision::NotAllowed(Kind::Resource));
    }

    #[test]
    fn an_explicit_deny_wins_from_either_policy() {
        let deny = json!({ "Effect": "Deny", "Principal": "*", "Action": "kms:*", "Resource": "*" });
        assert_eq!(decrypt(&policy(json!([allow(json!({})), deny])), &[]), Decision::Denied(Kind::Resource));
        let role = policy(json!({ "Effect": "Deny", "Action": "kms:Decrypt", "Resource": KEY }));
        let key = policy(json!(allow(json!({}))));
        let decision = decide(Some(&key), Some(&role), &request(ENCLAVE, "kms:Decrypt", &[]));
        assert_eq!(decision, Decision::Denied(Kind::Identity));
    }

    #[test]
    fn naming_the_account_leaves_it_to_the_roles_own_policy() {
        for account in ["arn:aws:iam::111122223333:root", "111122223333"] {
            let key = policy(json!(allow(json!({ "Principal": { "AWS": account } }))));
            assert_eq!(decrypt(&key, &[]), Decision::NotAllowed(Kind::Identity));
            let role = policy(json!({ "Effect": "Allow", "Action": "kms:*", "Resource": "*" }));
            assert_eq!(decide(Some(&key), Some(&role), &request(ENCLAVE, "kms:Decrypt", &[])), Decision::Allowed);
        }
        let key = policy(json!(allow(json!({ "Principal": { "AWS": "arn:aws:iam::999922223333:root" } }))));
        assert_eq!(decrypt(&key, &[]), Decision::NotAllowed(Kind::Resource));
    }

    #[test]
    fn attestation_conditions_compare_without_regard_to_case() {
        let equal = json!({ "Condition": { "StringEqualsIgnoreCase": { "kms:RecipientAttestation:PCR0": "ABCD" } } });
        let key = policy(json!(allow(equal)));
        assert_eq!(decrypt(&key, &[("PCR0", "abcd")]), Decision::Allowed);
        for others in [&[("PCR0", "abce")][..], &[("PCR1", "abcd")], &[]] {
            assert_eq!(decrypt(&key, others), Decision::NotAllowed(Kind::Resource), "{others:?}");
        }
        let image = json!({ "Condition": { "StringEquals": { "kms:recipientattestation:imagesha384": "ab" } } });
        assert_eq!(decrypt(&policy(json!(allow(image.clone()))), &[("ImageSha384", "ab")]), Decision::Allowed);
        assert_ne!(decrypt(&policy(json!(allow(image))), &[("ImageSha384", "AB")]), Decision::Allowed);
    }

    #[test]
    fn negated_operators_hold_for_what_is_absent_and_equal_ones_only_if_exists() {
        let with = |operator: &str| {
            policy(json!(allow(
                json!({ "Condition": { operator: { "kms:RecipientAttestation:PCR0": ["aa", "bb"] } } })
            )))
        };
        for (operator, absent, listed, other) in [
            ("StringEqualsIgnoreCase", false, true, false),
            ("StringEqualsIgnoreCaseIfExists", true, true, false),
            ("StringNotEqualsIgnoreCase", true, false, true),
            ("ForAnyValue:StringEquals", false, true, false),
            ("ForAllValues:StringEquals", true, true, false),
            ("ForAnyValue:StringNotEquals", true, false, true),
        ] {
            let policy = with(operator);
            let holds = |pcrs: &[(&str, &str)]| decrypt(&policy, pcrs) == Decision::Allowed;
            assert_eq!(holds(&[]), absent, "{operator}");
            assert_eq!(holds(&[("PCR0", "bb")]), listed, "{operator}");
            assert_eq!(holds(&[("PCR0", "cc")]), other, "{operator}");
        }
    }

    #[test]
    fn all_conditions_of_a_statement_must_hold_and_lists_admit_mixtures() {
        let both = json!({ "Condition": { "StringEquals": {
            "kms:RecipientAttestation:PCR0": ["old", "new"], "kms:RecipientAttestation:PCR2": ["old", "new"],
        } } });
        let key = policy(json!(allow(both)));
        assert_eq!(decrypt(&key, &[("PCR0", "old"), ("PCR2", "new")]), Decision::Allowed);
        assert_ne!(decrypt(&key, &[("PCR0", "old"), ("PCR2", "other")]), Decision::Allowed);
        assert_ne!(decrypt(&key, &[("PCR0", "old")]), Decision::Allowed);
    }

    #[test]
    fn what_aws_would_not_take_is_not_taken() {
        for statement in [
            json!({ "Effect": "Allow", "Principal": "*", "Resource": "*" }),
            json!({ "Effect": "Perhaps", "Principal": "*", "Action": "*", "Resource": "*" }),
            json!({ "Effect": "Allow", "Principal": "*", "Action": "*", "Condition": { "StringEqual": { "a": "b" } } }),
            json!({ "Effect": "Allow", "Principal": "*", "Action": "*", "Condition": { "Each:StringEquals": { "a": "b" } } }),
        ] {
            assert!(Policy::parse(json!({ "Statement": [statement] })).is_err(), "{statement}");
        }
        assert!(Policy::parse(json!({})).is_err());
    }
}

mod generated {
    use super::*;

    fn value(byte: u8) -> String {
        PcrValue::new([byte; 48]).to_string()
    }

    fn image(label: &str, seed: u8) -> ExpectedImage {
        let pcrs: Pcrs = (0..3).map(|i| (PcrIndex::new(i).unwrap(), PcrValue::new([seed + i; 48]))).collect();
        ExpectedImage::new(label, None, pcrs).unwrap()
    }

    fn two_images() -> Policy {
        let measurements = Measurements::new(vec![image("old", 10), image("new", 20)]).unwrap();
        let request = PolicyRequest::new(&measurements, KEY, ENCLAVE, &[ADMIN]).unwrap();
        Policy::parse(request.key_policy().unwrap()).unwrap()
    }

    fn decision(role: &str, action: &str, pcrs: [u8; 3]) -> Decision {
        let values = pcrs.map(value);
        let named = [("PCR0", &*values[0]), ("PCR1", &*values[1]), ("PCR2", &*values[2]), ("ImageSha384", &*values[0])];
        // A role policy that allows everything changes nothing.
        let everything = policy(json!({ "Effect": "Allow", "Action": "*", "Resource": "*" }));
        decide(Some(&two_images()), Some(&everything), &request(role, action, &named))
    }

    #[test]
    fn exactly_the_images_may_use_the_key_and_no_mixture_of_them() {
        for action in ["kms:Decrypt", "kms:GenerateDataKey"] {
            assert_eq!(decision(ENCLAVE, action, [10, 11, 12]), Decision::Allowed);
            assert_eq!(decision(ENCLAVE, action, [20, 21, 22]), Decision::Allowed);
            for pcrs in [[10, 11, 22], [10, 21, 12], [20, 11, 12], [10, 21, 22], [20, 11, 22], [20, 21, 12]] {
                assert_eq!(decision(ENCLAVE, action, pcrs), Decision::NotAllowed(Kind::Resource), "{pcrs:?}");
            }
            for pcrs in [[0, 0, 0], [30, 11, 12], [10, 30, 12], [10, 11, 30]] {
                assert_eq!(decision(ENCLAVE, action, pcrs), Decision::Denied(Kind::Resource), "{pcrs:?}");
            }
        }
    }

    #[test]
    fn nobody_gets_anything_without_a_document_nor_anything_else_with_one() {
        let key = two_images();
        let root = "arn:aws:iam::111122223333:root";
        for role in [ENCLAVE, ADMIN, root, "arn:aws:iam::111122223333:role/host"] {
            for action in
                ["kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:DeriveSharedSecret"]
            {
                let decided = decide(Some(&key), None, &request(role, action, &[]));
                assert_eq!(decided, Decision::Denied(Kind::Resource), "{role} {action}");
            }
            for action in ["kms:CreateGrant", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:ReplicateKey", "kms:Encrypt"]
            {
                assert_eq!(decision(role, action, [10, 11, 12]), Decision::Denied(Kind::Resource), "{role} {action}");
            }
        }
        for action in ["kms:GenerateDataKeyPair", "kms:PutKeyPolicy", "kms:Verify"] {
            assert_eq!(decision(ENCLAVE, action, [10, 11, 12]), Decision::NotAllowed(Kind::Resource), "{action}");
        }
    }

    #[test]
    fn administrators_administer_and_do_not_use() {
        for action in ["kms:PutKeyPolicy", "kms:DisableKey", "kms:ScheduleKeyDeletion", "kms:DescribeKey"] {
            assert_eq!(decision(ADMIN, action, [0, 0, 0]), Decision::Allowed, "{action}");
            assert_ne!(decision(ENCLAVE, action, [10, 11, 12]), Decision::Allowed, "{action}");
        }
        for action in ["kms:Decrypt", "kms:GenerateDataKey"] {
            assert_eq!(decision(ADMIN, action, [10, 11, 12]), Decision::NotAllowed(Kind::Resource));
            assert_eq!(decision(ADMIN, action, [0, 0, 0]), Decision::Denied(Kind::Resource));
        }
    }

    /// Under whatever policy the lint does not refuse, only an attested image gets anything: tried on every policy that
    /// drops or spoils one statement of ours.
    #[test]
    fn what_the_lint_lets_pass_the_engine_keeps_shut() {
        let good = two_images().source().clone();
        let statements = good["Statement"].as_array().unwrap().len();
        let mut variants = vec![good.clone()];
        for at in 0..statements {
            let mut dropped = good.clone();
            dropped["Statement"].as_array_mut().unwrap().remove(at);
            let mut unconditional = good.clone();
            unconditional["Statement"][at].as_object_mut().unwrap().remove("Condition");
            let mut for_all_actions = good.clone();
            for_all_actions["Statement"][at]["Action"] = json!("kms:*");
            let mut for_account = good.clone();
            for_account["Statement"][at]["Principal"] = json!({ "AWS": "arn:aws:iam::111122223333:root" });
            let mut if_exists = good.clone();
            if let Some(Value::Object(conditions)) = if_exists["Statement"][at].get_mut("Condition") {
                *conditions = conditions.iter().map(|(name, keys)| (format!("{name}IfExists"), keys.clone())).collect();
            }
            variants.extend([dropped, unconditional, for_all_actions, for_account, if_exists]);
        }
        let everything = policy(json!({ "Effect": "Allow", "Action": "*", "Resource": "*" }));
        let (mut passed, mut refused) = (0, 0);
        for variant in variants {
            if lint(&variant).unwrap().iter().any(Finding::is_refused) {
                refused += 1;
                continue;
            }
            passed += 1;
            let key = Policy::parse(variant.clone()).unwrap();
            for role in [ENCLAVE, ADMIN, "arn:aws:iam::111122223333:role/host"] {
                for action in
                    ["kms:Decrypt", "kms:GenerateDataKey", "kms:CreateGrant", "kms:ReEncryptFrom", "kms:Encrypt"]
                {
                    let zeros = value(0);
                    for pcrs in [&[][..], &[("PCR0", &*zeros), ("PCR1", &*zeros), ("PCR2", &*zeros)]] {
                        let decided = decide(Some(&key), Some(&everything), &request(role, action, pcrs));
                        assert_ne!(decided, Decision::Allowed, "{role} {action} {pcrs:?} under {variant:#}");
                    }
                }
            }
        }
        assert!(passed >= 20 && refused >= 10, "{passed} passed, {refused} refused");
    }
}

mod over_the_wire {
    use super::*;

    /// The whole way: measurements, generated policies, real calls.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_generated_policies_let_the_measured_images_in_and_nobody_else() {
        let setting = Setting::new().await;
        let end = NOW.plus(Duration::from_secs(3600));
        let old = ExpectedImage::new("old", Some(end), MockImage::named("old").pcrs()).unwrap();
        let measurements = Measurements::new(vec![old, MockImage::named("new").expected("new")]).unwrap();
        let role = setting.kms.role_arn(ROLE);
        let request = PolicyRequest::new(&measurements, setting.key.as_str(), &role, &[ADMIN]).unwrap();
        setting.kms.put_key_policy(&setting.key, request.key_policy().unwrap());
        setting.kms.put_role_policy(ROLE, request.role_policy().unwrap());
        let (old, new) = (setting.client_in(Mode::Production, "old"), setting.client_in(Mode::Production, "new"));
        let made = old.generate_data_key(&content("a", 1)).await.unwrap();
        let opened = new.decrypt(&made.ciphertext, &content("a", 1)).await.unwrap();
        assert_eq!(opened.expose(), made.plaintext.expose());
        assert_eq!(new.generate_random(32).await.unwrap().len(), 32);
        for (mode, image) in [(Mode::Production, "ours"), (Mode::Debug, "new")] {
            let other = setting.client_in(mode, image);
            let error = other.decrypt(&made.ciphertext, &content("a", 1)).await.unwrap_err();
            assert_eq!(error.cause(), "attestation-condition", "{image}");
            assert_eq!(other.generate_random(32).await.unwrap_err().cause(), "access-denied", "{image}");
        }
        setting.clock.advance(Duration::from_secs(3601));
        assert!(old.decrypt(&made.ciphertext, &content("a", 1)).await.is_err(), "the old image's time is over");
        assert!(new.decrypt(&made.ciphertext, &content("a", 1)).await.is_ok());
    }
}
