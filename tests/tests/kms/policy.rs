use enclave_app::kms::KmsError;
use serde_json::json;
use testkit::{
    kms::KeyState,
    nsm::{MockImage, Mode},
};

use crate::setting::{Setting, content, key_policy};

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_of_another_image_is_refused_and_told_what_it_presented() {
    let setting = Setting::new().await;
    let wrapped = setting.client().generate_data_key(&content("a", 1)).await.unwrap().ciphertext;
    let other = setting.client_in(Mode::Production, "theirs");
    for error in [
        other.generate_data_key(&content("a", 1)).await.unwrap_err(),
        other.decrypt(&wrapped, &content("a", 1)).await.unwrap_err(),
    ] {
        assert_eq!((error.cause(), error.retryable()), ("attestation-condition", false));
        assert!(error.is_attestation_refused() && !error.is_bad_reply());
        let KmsError::ConditionNotMet { presented, .. } = &error else { panic!("{error}") };
        let expected: Vec<_> = MockImage::named("theirs").pcrs().iter().map(|(index, value)| (index, *value)).collect();
        assert_eq!(presented.pcrs()[..3], expected);
        assert!(error.to_string().contains(&format!("PCR0={}", expected[0].1)), "{error}");
        assert!(error.next_step().contains("Compare these PCRs"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debug_enclave_of_the_right_image_is_refused() {
    let setting = Setting::new().await;
    let error = setting.client_in(Mode::Debug, "ours").generate_data_key(&content("a", 1)).await.unwrap_err();
    assert_eq!(error.cause(), "attestation-condition");
    assert!(error.to_string().contains(&"0".repeat(96)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_under_another_root_is_refused() {
    let setting = Setting::new().await;
    let elsewhere = testkit::nsm::MockHypervisor::new(setting.clock.clone()).launch(&MockImage::named("ours"));
    let documents = enclave_app::nsm::NsmHandle::start(elsewhere).unwrap();
    let client = setting.client_with(|config| config.documents = std::sync::Arc::new(documents));
    let error = client.generate_data_key(&content("a", 1)).await.unwrap_err();
    assert_eq!(error.cause(), "document-refused");
    assert!(error.to_string().contains("untrusted-root"), "{error}");
    assert!(error.is_attestation_refused());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_admits_the_new_image_once_the_policy_does() {
    let setting = Setting::new().await;
    let wrapped = setting.client().generate_data_key(&content("a", 1)).await.unwrap();
    let new = setting.client_in(Mode::Production, "new");
    assert!(new.decrypt(&wrapped.ciphertext, &content("a", 1)).await.is_err());
    let both = json!({
        "Statement": [
            key_policy(&setting.kms, &MockImage::named("ours"))["Statement"][0],
            key_policy(&setting.kms, &MockImage::named("new"))["Statement"][0],
        ],
    });
    setting.kms.put_key_policy(&setting.key, both);
    let opened = new.decrypt(&wrapped.ciphertext, &content("a", 1)).await.unwrap();
    assert_eq!(opened.expose(), wrapped.plaintext.expose());
    assert!(setting.client().decrypt(&wrapped.ciphertext, &content("a", 1)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn randomness_without_a_role_policy_is_denied_and_says_where_to_allow_it() {
    let setting = Setting::new().await;
    let nothing = json!({ "Statement": { "Effect": "Allow", "Action": "s3:GetObject", "Resource": "*" } });
    setting.kms.put_role_policy(crate::setting::ROLE, nothing);
    let error = setting.client().generate_random(32).await.unwrap_err();
    assert_eq!(error.cause(), "access-denied");
    assert!(error.next_step().contains("IAM policy"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explicit_deny_wins() {
    let setting = Setting::new().await;
    let mut policy = key_policy(&setting.kms, &MockImage::named("ours"));
    let deny = json!({ "Effect": "Deny", "Principal": "*", "Action": "kms:GenerateDataKey*", "Resource": "*" });
    policy["Statement"].as_array_mut().unwrap().push(deny);
    let client = setting.client();
    let wrapped = client.generate_data_key(&content("a", 1)).await.unwrap().ciphertext;
    setting.kms.put_key_policy(&setting.key, policy);
    let error = client.generate_data_key(&content("a", 1)).await.unwrap_err();
    assert!(error.to_string().contains("explicit deny"), "{error}");
    assert!(client.decrypt(&wrapped, &content("a", 1)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_used_says_so() {
    let setting = Setting::new().await;
    let client = setting.client();
    for (state, cause) in
        [(KeyState::Disabled, "key-unusable"), (KeyState::PendingDeletion, "key-unusable"), (KeyState::Enabled, "none")]
    {
        setting.kms.set_key_state(&setting.key, state);
        let result = client.generate_data_key(&content("a", 1)).await;
        assert_eq!(result.as_ref().err().map_or("none", KmsError::cause), cause, "{result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_exist_says_so() {
    let setting = Setting::new().await;
    let missing = setting.key.as_str().replace(setting.key.key_id(), "00000000-0000-0000-0000-000000000000");
    let client = setting.client_with(|config| config.key = missing.parse().unwrap());
    assert_eq!(client.generate_data_key(&content("a", 1)).await.unwrap_err().cause(), "key-not-found");
}

/// The endpoint follows from the ARN, so a key of another region leads to that region's name, which this KMS cannot prove.
#[tokio::test(flavor = "multi_thread")]
async fn another_region_is_refused_by_its_certificate() {
    let setting = Setting::new().await;
    let elsewhere = setting.key.as_str().replace("eu-west-1", "us-east-1");
    let client = setting.client_with(|config| config.key = elsewhere.parse().unwrap());
    let error = client.generate_data_key(&content("a", 1)).await.unwrap_err();
    assert_eq!(error.cause(), "untrusted-server");
    assert_eq!(setting.dialer.targets(), ["kms.us-east-1.amazonaws.com:443"]);
    assert_eq!(setting.kms.requests(), []);
}
