//! `confidential top`, against a running system.

use client::cli::{Exit, run_with};
use testkit::world::World;

use super::figures::scrape_until;

async fn top(world: &World, more: &[&str]) -> (Exit, String, String) {
    let admin = format!("unix:{}", world.admin_socket().display());
    let mut args = vec!["confidential", "top", "--admin", &admin, "--any-image"];
    args.extend(more);
    let args: Vec<std::ffi::OsString> = args.into_iter().map(Into::into).collect();
    tokio::task::spawn_blocking(move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = run_with(args, &mut out, &mut err);
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_host_and_enclave_and_says_whose_word_it_is() {
    let mut world = World::start().await;
    world.operator().generate("content-key-1").await.unwrap();
    let keys = |found: &super::exposition::Scrape| found.find("transcode_enclave_keys", &[("state", "active")]);
    scrape_until(&world, |found| keys(found) == Some(1.0)).await;

    let (exit, text, _) = top(&world, &["--once"]).await;
    assert_eq!(exit, Exit::Ok);
    for part in
        ["host      ready; enclave has a session", "log       open, epoch 1", "POST /v1/keys ", "the host's word"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let (_, json, _) = top(&world, &["--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["metrics"]["transcode_enclave_epoch"], 1.0);
    assert_eq!(json["status"], serde_json::Value::Null);

    world.kill_enclave().await;
    scrape_until(&world, |found| found.value("transcode_proxy_ready", &[]) == 0.0).await;
    let (_, text, _) = top(&world, &["--once"]).await;
    assert!(text.contains("NOT READY; enclave has NO SESSION"), "{text}");
    world.stop_proxy().await;
    let (exit, _, error) = top(&world, &["--once"]).await;
    assert_eq!(exit, Exit::Unavailable, "{error}");
}
