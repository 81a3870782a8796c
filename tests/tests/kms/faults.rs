use std::time::Duration;

use enclave_app::kms::KmsError;
use testkit::kms::fault::Fault;

use crate::setting::{Setting, content};

#[tokio::test(flavor = "multi_thread")]
async fn every_reply_that_kms_would_not_send_is_refused_by_its_own_name() {
    let setting = Setting::new().await;
    let client = setting.client();
    let context = content("a", 1);
    let wrapped = client.generate_data_key(&context).await.unwrap().ciphertext;
    let other_account = setting.key.as_str().replace("111122223333", "999922223333");
    let other_region = setting.key.as_str().replace("eu-west-1", "us-east-1");
    for (fault, cause) in [
        (Fault::PlaintextInstead, "plaintext-reply"),
        (Fault::PlaintextBeside, "plaintext-reply"),
        (Fault::KeyId(other_account), "other-key"),
        (Fault::KeyId(other_region), "other-key"),
        (Fault::KeyId(setting.key.key_id().to_owned()), "other-key"),
        (Fault::KeyId("alias/content".to_owned()), "other-key"),
        (Fault::NoKeyId, "incomplete-reply"),
        (Fault::NotSealed, "not-sealed"),
        (Fault::SealedToAnother, "envelope"),
        (Fault::PlaintextLength(31), "envelope"),
        (Fault::PlaintextLength(33), "envelope"),
        (Fault::PlaintextLength(0), "envelope"),
        (Fault::NotJson, "malformed-reply"),
        (Fault::Oversized, "malformed-reply"),
    ] {
        setting.kms.fail_next(1, fault.clone());
        let error = client.generate_data_key(&context).await.unwrap_err();
        assert_eq!(error.cause(), cause, "{fault:?}");
        assert!(error.is_bad_reply() && !error.retryable(), "{fault:?}");
        setting.kms.fail_next(1, fault.clone());
        let error = client.decrypt(&wrapped, &context).await.unwrap_err();
        assert_eq!(error.cause(), cause, "{fault:?}");
    }
    setting.kms.fail_next(1, Fault::NoCiphertextBlob);
    let error = client.generate_data_key(&context).await.unwrap_err();
    assert_eq!(error, KmsError::Incomplete { field: "CiphertextBlob" });
    for fault in [Fault::PlaintextInstead, Fault::PlaintextBeside, Fault::NotSealed, Fault::PlaintextLength(31)] {
        setting.kms.fail_next(1, fault.clone());
        assert!(client.generate_random(32).await.unwrap_err().is_bad_reply(), "{fault:?}");
    }
    assert!(client.decrypt(&wrapped, &context).await.is_ok());
}

/// Where the envelope's content has no MAC, a garbled reply may open to another key, never to the right one.
#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_garbled_anywhere_never_gives_the_key() {
    let setting = Setting::new().await;
    let client = setting.client();
    let context = content("a", 1);
    let made = client.generate_data_key(&context).await.unwrap();
    let mut refused = 0;
    // A sample: without the network in between, tests of the envelope itself try every byte.
    let positions: Vec<usize> =
        (0..131).step_by(4).chain((131..387).step_by(64)).chain((387..493).step_by(6)).collect();
    for at in positions.iter().copied().chain([100_000]) {
        setting.kms.fail_next(1, Fault::Garbled(at));
        match client.decrypt(&made.ciphertext, &context).await {
            Err(error) => {
                assert_eq!(error.cause(), "envelope", "byte {at}");
                refused += 1;
            }
            Ok(opened) => assert_ne!(opened.expose(), made.plaintext.expose(), "byte {at}"),
        }
    }
    assert!(refused > positions.len() - 20, "{refused} of {}", positions.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    let setting = Setting::new().await;
    let client = setting.client();
    let context = content("a", 1);
    for fault in [Fault::THROTTLED, Fault::INTERNAL, Fault::HalfClosed, Fault::Closed] {
        let before = setting.kms.requests().len();
        setting.kms.fail_next(2, fault.clone());
        client.generate_data_key(&context).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(setting.kms.requests().len(), before + 3, "{fault:?}");
    }
    for fault in [Fault::PlaintextInstead, Fault::Error(400, "DisabledException", "x"), Fault::NotJson] {
        let before = setting.kms.requests().len();
        setting.kms.fail_next(1, fault.clone());
        client.generate_data_key(&context).await.unwrap_err();
        assert_eq!(setting.kms.requests().len(), before + 1, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_that_stays_ends_with_its_cause() {
    let setting = Setting::new().await;
    let client = setting.client_with(|config| config.limits.attempts = 2);
    setting.kms.fail_next(100, Fault::THROTTLED);
    let error = client.generate_data_key(&content("a", 1)).await.unwrap_err();
    assert_eq!(error, KmsError::Throttled);
    assert!(error.retryable());
    assert_eq!(setting.kms.requests().len(), 2);
    setting.kms.clear_faults();
    assert!(client.generate_data_key(&content("a", 1)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_kms_costs_no_more_than_the_total_time() {
    let setting = Setting::new().await;
    let client = setting.client_with(|config| {
        config.limits.attempt = Duration::from_secs(2);
        config.limits.total = Duration::from_secs(5);
    });
    client.generate_data_key(&content("a", 1)).await.unwrap();
    // Nobody waits for its answers.
    setting.kms.fail_next(100, Fault::Slow(Duration::from_secs(24 * 3600)));
    let error = client.generate_data_key(&content("a", 1)).await.unwrap_err();
    assert_eq!(error, KmsError::TimedOut);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_reply_is_given_up_and_the_next_attempt_succeeds() {
    let setting = Setting::new().await;
    let client = setting.client_with(|config| config.limits.attempt = Duration::from_secs(2));
    setting.kms.fail_next(1, Fault::Slow(Duration::from_secs(24 * 3600)));
    client.generate_data_key(&content("a", 1)).await.unwrap();
    let connections: Vec<_> = setting.kms.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 2], "the connection that was slow is not used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_document_nothing_is_asked() {
    let setting = Setting::new().await;
    setting.nsm.set_failure(Some(enclave_app::nsm::NsmError::NoDevice));
    let error = setting.client().generate_data_key(&content("a", 1)).await.unwrap_err();
    assert_eq!(error.cause(), "no-document");
    assert_eq!(setting.dialer.dials(), 0);
}
