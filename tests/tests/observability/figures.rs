use std::{path::Path, time::Duration};

use testkit::{
    nsm::MockImage,
    world::{Plan, World},
};
use transcode_confidential::{message::EncryptionContext, protocol::metrics::CATALOGUE};

use super::exposition::Scrape;

/// A report comes every five seconds; a loaded machine may take its time.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn scrape(world: &World) -> (Scrape, String) {
    let (status, text) = world.admin("/metrics").await;
    assert_eq!(status, 200);
    (Scrape::read(&text), text)
}

/// Waits until the figures are as they should be.
pub(crate) async fn scrape_until(world: &World, arrived: impl Fn(&Scrape) -> bool) -> (Scrape, String) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (found, text) = scrape(world).await;
        if arrived(&found) {
            return (found, text);
        }
        assert!(tokio::time::Instant::now() < deadline, "the figures never get there:\n{text}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn requests(scrape: &Scrape, route: &str, code: &str) -> f64 {
    scrape.find("transcode_enclave_requests_total", &[("route", route), ("code", code)]).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_a_running_system_are_those_of_what_was_done() {
    let world = World::start().await;
    let (operator, transcoder) = (world.operator(), world.transcoder());
    operator.generate("content-key-1").await.unwrap();
    let message = transcoder.encrypt("content-key-1", b"frame").await.unwrap();
    for _ in 0..3 {
        transcoder.decrypt(&message).await.unwrap();
    }
    transcoder.revoke("content-key-1").await.unwrap_err();
    operator.rotate("content-key-1").await.unwrap();
    let (found, text) = scrape_until(&world, |found| requests(found, "POST /v1/keys/{id}/rotate", "OK") == 1.0).await;
    assert_eq!(requests(&found, "POST /v1/keys", "OK"), 1.0);
    assert_eq!(requests(&found, "POST /v1/keys/{id}/encrypt", "OK"), 1.0);
    assert_eq!(requests(&found, "POST /v1/decrypt", "OK"), 3.0);
    assert_eq!(requests(&found, "POST /v1/keys/{id}/revoke", "DENIED"), 1.0);
    assert_eq!(requests(&found, "other", "OK"), 0.0, "every route has a name of its own");
    let plain = |name: &str| found.value(&format!("transcode_enclave_{name}"), &[]);
    let events = world.check().intact().events.len() as f64;
    assert!(plain("log_persisted_events") > 5.0 && plain("log_persisted_events") <= events, "{text}");
    assert!(plain("log_placed_events") >= plain("log_persisted_events"));
    assert_eq!((plain("epoch"), plain("log_available"), plain("policy_version")), (1.0, 1.0, 1.0));
    assert_eq!(found.value("transcode_enclave_keys", &[("state", "active")]), 1.0);
    assert_eq!(found.value("transcode_enclave_kms_calls_total", &[("operation", "GenerateDataKey")]), 3.0);
    assert_eq!(found.value("transcode_enclave_refusals_total", &[("code", "DENIED")]), 1.0);
    assert!(plain("credentials_remaining_seconds") > 60.0);
    assert!(plain("memory_resident_bytes") > 1e6 && plain("files_open") > 5.0);
    assert!(plain("log_persist_seconds_count") >= 1.0);
    assert_eq!(found.value("transcode_proxy_ready", &[]), 1.0);
    assert!(found.value("transcode_proxy_relay_connect_seconds_count", &[]) >= 2.0);
    // What others' tools read in CI.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("metrics.prom");
    std::fs::write(path, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_counted_by_its_cause_and_what_waits_is_seen_to_wait() {
    let mut world = World::start().await;
    let operator = world.operator();
    world.kms_accepts(&[MockImage::named("another")]);
    operator.generate("content-key-1").await.unwrap_err();
    let cause = [("cause", "attestation-condition")];
    let failures = |found: &Scrape| found.find("transcode_enclave_kms_failures_total", &cause).unwrap_or_default();
    let (found, _) = scrape_until(&world, |found| failures(found) >= 1.0).await;
    assert!(found.find("transcode_enclave_log_persisted_events", &[]).is_some_and(|size| size >= 1.0));
    let image = world.image().clone();
    world.kms_accepts(&[image]);
    world.kill_enclave().await;
    // Figures of an enclave that is gone grow old, and the proxy says that it is not ready.
    let (found, _) = scrape_until(&world, |found| found.value("transcode_proxy_ready", &[]) == 0.0).await;
    assert_eq!(found.value("transcode_proxy_host_session_alive", &[]), 0.0);
    assert_eq!(world.admin("/readyz").await.0, 503);
    assert_eq!(world.admin("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_takes_no_figures_changes_nothing() {
    // The scripted parent refuses them.
    let world = World::with(Plan::scripted()).await;
    world.operator().generate("content-key-1").await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let message = world.transcoder().encrypt("content-key-1", b"frame").await.unwrap();
    assert_eq!(world.transcoder().decrypt(&message).await.unwrap(), b"frame");
    world.check().intact();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_figure_names_a_key_a_principal_or_a_content() {
    let world = World::start().await;
    let (operator, transcoder) = (world.operator(), world.transcoder());
    operator.generate("content-CANARY-key").await.unwrap();
    let context = EncryptionContext::from_pairs([("CANARY-name", "CANARY-value")]).unwrap();
    transcoder.encrypt_in("content-CANARY-key", b"CANARY-content", context).await.unwrap();
    transcoder.revoke("content-CANARY-key").await.unwrap_err();
    transcoder.key("CANARY-unknown").await.unwrap_err();
    let (found, text) = scrape_until(&world, |found| requests(found, "GET /v1/keys/{id}", "DENIED") == 1.0).await;
    for name in ["CANARY", "canary", "operator", "transcoder", &world.serving().log_id.to_string()] {
        assert!(!text.contains(name), "{name}\n{text}");
    }
    // No text crosses at all: each label is one of the catalogue's, which is compiled into the proxy.
    for sample in found.samples.iter().filter(|sample| sample.name.starts_with("transcode_enclave_")) {
        for (label, value) in sample.labels.iter().filter(|(label, _)| *label != "le") {
            let known = CATALOGUE
                .iter()
                .flat_map(|family| family.labels)
                .any(|known| known.name == label && known.values.contains(&value.as_str()));
            assert!(known, "{sample:?}");
        }
    }
}
