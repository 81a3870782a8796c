use std::{sync::Arc, time::Duration};

use testkit::kms::fault::Fault;

use crate::setting::{LIFETIME, ROLE, Setting, content};

#[tokio::test(flavor = "multi_thread")]
async fn expired_credentials_are_fetched_anew_and_the_call_succeeds() {
    let setting = Setting::new().await;
    let client = setting.client();
    client.generate_data_key(&content("a", 1)).await.unwrap();
    let first = setting.kms.requests()[0].access_key_id.clone().unwrap();
    setting.kms.expire_credentials(&first);
    setting.credentials.set(Some(setting.kms.issue_credentials(ROLE, LIFETIME)));
    client.generate_data_key(&content("a", 1)).await.unwrap();
    assert_eq!(setting.credentials.fetches(), 2);
    let requests = setting.kms.requests();
    assert_ne!(requests.last().unwrap().access_key_id, Some(first));
    let documents: Vec<_> = requests.iter().filter_map(|request| request.document).collect();
    assert_eq!(documents.len(), 2, "the refused attempt was refused before its document was looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_stay_expired_end_with_their_cause() {
    let setting = Setting::new().await;
    let client = setting.client();
    setting.kms.fail_next(100, Fault::EXPIRED);
    let error = client.generate_data_key(&content("a", 1)).await.unwrap_err();
    assert_eq!((error.cause(), error.retryable()), ("credentials-expired", true));
    assert_eq!(setting.credentials.fetches(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_that_fail_together_fetch_once_together() {
    let setting = Setting::new().await;
    let client = Arc::new(setting.client());
    client.generate_random(1).await.unwrap();
    let first = setting.kms.requests()[0].access_key_id.clone().unwrap();
    setting.kms.expire_credentials(&first);
    setting.credentials.set(Some(setting.kms.issue_credentials(ROLE, LIFETIME)));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        calls.spawn(async move { client.generate_random(16).await.map(|_| ()) });
    }
    assert!(calls.join_all().await.into_iter().all(|result| result.is_ok()));
    assert_eq!(setting.credentials.fetches(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_refreshed_ahead_of_their_end_and_not_before() {
    let setting = Setting::new().await;
    let client = setting.client();
    client.generate_random(1).await.unwrap();
    setting.clock.advance(LIFETIME - Duration::from_secs(301));
    client.generate_random(1).await.unwrap();
    assert_eq!(setting.credentials.fetches(), 1);
    setting.credentials.set(Some(setting.kms.issue_credentials(ROLE, LIFETIME)));
    setting.clock.advance(Duration::from_secs(2));
    client.generate_random(1).await.unwrap();
    assert_eq!(setting.credentials.fetches(), 2);
    assert!(setting.kms.requests().iter().all(|request| request.error.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_cannot_refresh_ahead_costs_nothing_until_the_end() {
    let setting = Setting::new().await;
    let client = setting.client();
    client.generate_random(1).await.unwrap();
    setting.credentials.set(None);
    setting.clock.advance(LIFETIME - Duration::from_secs(60));
    client.generate_random(1).await.unwrap();
    client.generate_random(1).await.unwrap();
    assert_eq!(setting.credentials.fetches(), 2, "a failed refresh is not repeated at once");
    setting.clock.advance(Duration::from_secs(61));
    let error = client.generate_random(1).await.unwrap_err();
    assert_eq!((error.cause(), error.retryable()), ("no-credentials", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_kms_does_not_know_are_named_as_such() {
    let setting = Setting::new().await;
    let mut forged = setting.kms.issue_credentials(ROLE, LIFETIME);
    forged.secret_access_key = "wrong".to_owned();
    setting.credentials.set(Some(forged));
    let error = setting.client().generate_random(1).await.unwrap_err();
    assert_eq!(error.cause(), "credentials-refused");
    assert!(error.to_string().contains("signature"), "{error}");
    let mut unknown = setting.kms.issue_credentials(ROLE, LIFETIME);
    unknown.access_key_id = "ASIAUNKNOWN".to_owned();
    setting.credentials.set(Some(unknown));
    let error = setting.client().generate_random(1).await.unwrap_err();
    assert_eq!(error.cause(), "credentials-refused");
}
