use std::{collections::BTreeSet, sync::Arc};

use enclave_app::kms::{KmsError, WrapContext, context::request_hash};
use testkit::kms::ber::ContentShape;
use transcode_confidential::{
    attestation::{Purpose, UserData},
    ids::{KeyVersion, LogId},
};

use crate::setting::{Setting, content};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_comes_sealed_in_every_shape_and_opens_again_after_a_restart() {
    let setting = Setting::new().await;
    for shape in ContentShape::ALL {
        setting.kms.set_content_shape(shape);
        let context = content("content-key-1", 1);
        let made = setting.client().generate_data_key(&context).await.unwrap();
        assert_eq!(setting.kms.reveal(&made.ciphertext).unwrap(), made.plaintext.expose());
        let restarted = setting.client();
        let opened = restarted.decrypt(&made.ciphertext, &context).await.unwrap();
        assert_eq!(opened.expose(), made.plaintext.expose());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn randomness_comes_sealed_and_of_the_length_asked_for() {
    let setting = Setting::new().await;
    let client = setting.client();
    let mut seen = BTreeSet::new();
    for length in [1, 32, 256, 1024] {
        let random = client.generate_random(length).await.unwrap();
        assert_eq!(random.len(), usize::from(length));
        assert!(seen.insert(random.to_vec()));
    }
    for length in [0, 1025, u16::MAX] {
        assert_eq!(client.generate_random(length).await.unwrap_err().cause(), "impossible-length");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_a_document_and_a_key_of_its_own_bound_to_the_request() {
    let setting = Setting::new().await;
    let client = setting.client();
    let log_key = WrapContext::log_key(LogId::new([9; 16]));
    let made = client.generate_data_key(&log_key).await.unwrap();
    client.generate_data_key(&content("a", 1)).await.unwrap();
    client.generate_data_key(&content("a", 1)).await.unwrap();
    client.decrypt(&made.ciphertext, &log_key).await.unwrap();
    client.generate_random(32).await.unwrap();
    let requests = setting.kms.requests();
    assert_eq!(requests.len(), 5);
    assert_eq!(requests.iter().map(|request| request.document).collect::<BTreeSet<_>>().len(), 5);
    assert_eq!(requests.iter().map(|request| request.public_key.clone()).collect::<BTreeSet<_>>().len(), 5);
    for request in &requests {
        let user_data = UserData::decode(request.user_data.as_deref().unwrap()).unwrap();
        assert_eq!(user_data.purpose(), Purpose::Kms);
        let UserData::Kms { log_id, request: bound } = user_data else { panic!("another purpose") };
        assert_eq!(bound, request_hash(&request.operation, &request.context));
        let named = request.context.get("transcode-confidential:log-id").cloned();
        assert_eq!(log_id.map(|log_id| log_id.to_string()), named);
    }
    assert_eq!(requests[0].key_id.as_deref(), Some(setting.key.as_str()));
    assert_eq!(requests[0].context, log_key.pairs());
    assert_eq!(requests[3].key_id.as_deref(), Some(setting.key.as_str()));
}

/// A key under one context never opens under another: all N(N-1) swaps of N wrapped keys and N contexts.
#[tokio::test(flavor = "multi_thread")]
async fn every_swap_of_wrapped_keys_or_contexts_is_refused() {
    let setting = Setting::new().await;
    let client = Arc::new(setting.client());
    let other_log = WrapContext::content_key(LogId::new([8; 16]), "a".parse().unwrap(), KeyVersion(1));
    let contexts = [
        content("a", 1),
        content("a", 2),
        content("b", 1),
        other_log,
        WrapContext::log_key(LogId::new([7; 16])),
        WrapContext::log_key(LogId::new([8; 16])),
    ];
    let mut made = Vec::new();
    for context in &contexts {
        made.push(client.generate_data_key(context).await.unwrap());
    }
    let mut refused = 0;
    for (i, key) in made.iter().enumerate() {
        for (j, context) in contexts.iter().enumerate() {
            match client.decrypt(&key.ciphertext, context).await {
                Ok(opened) => {
                    assert_eq!(i, j);
                    assert_eq!(opened.expose(), key.plaintext.expose());
                }
                Err(error) => {
                    assert_ne!(i, j);
                    assert_eq!(error, KmsError::WrappedKeyRefused);
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(refused, contexts.len() * (contexts.len() - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_key_that_was_altered_is_refused() {
    let setting = Setting::new().await;
    let client = setting.client();
    let context = content("a", 1);
    let made = client.generate_data_key(&context).await.unwrap();
    for at in [0, 12, made.ciphertext.len() / 2, made.ciphertext.len() - 1] {
        let mut altered = made.ciphertext.clone();
        altered[at] ^= 1;
        assert!(client.decrypt(&altered, &context).await.is_err(), "byte {at}");
    }
    assert_eq!(client.decrypt(&[], &context).await.unwrap_err().cause(), "impossible-length");
    assert_eq!(client.decrypt(&[0; 6145], &context).await.unwrap_err().cause(), "impossible-length");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_another_kms_key_wrapped_is_refused() {
    let setting = Setting::new().await;
    let context = content("a", 1);
    let policy = crate::setting::key_policy(&setting.kms, &testkit::nsm::MockImage::named("ours"));
    let other = setting.kms.create_key(policy);
    let theirs = setting.client_with(|config| config.key = other);
    let wrapped = theirs.generate_data_key(&context).await.unwrap().ciphertext;
    assert_eq!(setting.client().decrypt(&wrapped, &context).await.unwrap_err(), KmsError::WrappedKeyRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kms_that_is_restarted_opens_what_it_wrapped() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kms.json");
    let setting = Setting::with(|options| options.state_file = Some(file.clone())).await;
    let context = content("a", 1);
    let made = setting.client().generate_data_key(&context).await.unwrap();
    let Setting { kms, hypervisor, clock, nsm, key, credentials, .. } = setting;
    drop(kms);
    let mut options = testkit::kms::MockKmsOptions::new(hypervisor.trust_root());
    (options.state_file, options.clock) = (Some(file), clock.clone());
    let kms = testkit::kms::MockKms::start(options).await;
    let dialer = kms.dialer();
    let setting = Setting { clock, hypervisor, nsm, kms, key, credentials, dialer };
    let opened = setting.client().decrypt(&made.ciphertext, &context).await.unwrap();
    assert_eq!(opened.expose(), made.plaintext.expose());
    assert_eq!(setting.kms.reveal(&made.ciphertext).unwrap(), made.plaintext.expose());
}
