use std::{sync::Arc, time::Duration};

use testkit::clock::ManualClock;
use transcode_confidential::time::{Clock, Timestamp};

use crate::setting::{LIFETIME, NOW, ROLE, Setting, content};

/// The machine's clock says today; the enclave's says 2041, and the server's certificate is valid only then.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_signatures_are_held_against_the_enclaves_clock() {
    let in_2041 = Timestamp::from_secs(2_250_000_000);
    let setting = Setting::with(|options| options.certificate_years = 2041..2042).await;
    let error = setting.client().generate_random(1).await.unwrap_err();
    assert_eq!(error.cause(), "untrusted-server");
    assert!(error.to_string().contains("not valid yet"), "{error}");
    setting.clock.set(in_2041);
    setting.credentials.set(Some(setting.kms.issue_credentials(ROLE, LIFETIME)));
    setting.client().generate_data_key(&content("a", 1)).await.unwrap();
    setting.clock.set(Timestamp::from_secs(2_300_000_000));
    let error = setting.client().generate_random(1).await.unwrap_err();
    assert_eq!(error.cause(), "untrusted-server");
    assert!(error.to_string().contains("expired"), "{error}");
}

/// KMS's `Date` header corrects signing, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_corrected_for_signing() {
    for off in [Duration::from_secs(3600), Duration::from_secs(7 * 3600)] {
        let setting = Setting::new().await;
        let behind = Arc::new(ManualClock::at(NOW.minus(off)));
        setting.client_with_clock(behind.clone()).generate_data_key(&content("a", 1)).await.unwrap();
        let errors: Vec<_> = setting.kms.requests().into_iter().map(|request| request.error).collect();
        assert_eq!(errors, [Some("InvalidSignatureException".to_owned()), None], "{off:?}");
        assert_eq!(behind.now(), NOW.minus(off), "the enclave's clock is not touched");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_is_kept_for_the_next_calls() {
    let setting = Setting::new().await;
    let client = setting.client_with_clock(Arc::new(ManualClock::at(NOW.plus(Duration::from_secs(1800)))));
    for number in 1..=3 {
        client.generate_data_key(&content("a", number)).await.unwrap();
    }
    assert_eq!(setting.kms.requests().len(), 4, "one attempt too many, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_cannot_be_corrected_is_named() {
    let setting = Setting::new().await;
    let client = setting.client_with(|config| {
        config.clock = Arc::new(ManualClock::at(NOW.minus(Duration::from_secs(3600))));
        config.limits.attempts = 1;
    });
    let error = client.generate_random(1).await.unwrap_err();
    assert_eq!(error.cause(), "clock-skew");
    assert!(error.next_step().contains("NSM"));
}
