//! The gateway: who gets in, what comes out, and what happens while the enclave is away.

use std::{
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use http::Method;
use testkit::world::{Answered, Checked, RunningGateway, World};
use transcode_confidential::audit::AuditEventType;

use crate::{GATEWAY, KEY, world};

async fn with_key() -> World {
    let world = world().await;
    world.operator().generate(KEY).await.unwrap();
    world
}

/// The two URLs of a key info file.
fn lines(answer: Answered) -> (String, String) {
    let text = String::from_utf8(answer.ok().to_vec()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    (lines[0].to_owned(), lines[1].to_owned())
}

#[tokio::test]
async fn key_info_leads_to_a_key_by_get_and_by_put_and_periods_have_keys_of_their_own() {
    let world = with_key().await;
    let gateway = world.gateway(GATEWAY, |_| {}).await;
    let mut keys = Vec::new();
    for period in [0, 1] {
        for method in [Method::GET, Method::PUT] {
            let info = gateway.ask(method.clone(), &format!("/hls/{KEY}/1080p/{period}/keyinfo"), b"").await;
            let (players, packager) = lines(info);
            for url in [&players, &packager] {
                let key = RunningGateway::fetch(method.clone(), url, &[], b"").await;
                assert_eq!(key.headers["cache-control"], "no-store");
                keys.push(key.ok());
            }
        }
    }
    assert!(keys.iter().all(|key| key.len() == 16));
    assert!(keys[..4].iter().all(|key| *key == keys[0]) && keys[4..].iter().all(|key| *key == keys[4]));
    assert_ne!(keys[0], keys[4]);
    assert_eq!(world.check().intact().uses(KEY, 1), 2, "a period is one use, however often it is asked for");
}

#[tokio::test]
async fn what_stands_in_a_playlist_opens_nothing_but_media_keys() {
    let world = with_key().await;
    let gateway = world.gateway(GATEWAY, |_| {}).await;
    let (players, packager) = lines(gateway.ask(Method::GET, &format!("/hls/{KEY}/1080p/keyinfo"), b"").await);
    let base = players.split("/hls/").next().unwrap();
    assert!(!packager.starts_with(base));
    for path in
        [format!("/hls/{KEY}/1080p/keyinfo"), "/v1/keys".into(), format!("/v1/keys/{KEY}/encrypt"), "/health".into()]
    {
        assert_eq!(RunningGateway::fetch(Method::GET, &format!("{base}{path}"), &[], b"").await.status, 404, "{path}");
    }
    let elsewhere = world
        .gateway(GATEWAY, |settings| {
            settings.key_uri = Some("https://keys.test/{key}/{content}/{period}".parse().unwrap());
        })
        .await;
    let (uri, _) = lines(elsewhere.ask(Method::GET, &format!("/hls/{KEY}/1080p/7/keyinfo"), b"").await);
    assert_eq!(uri, format!("https://keys.test/{KEY}/1080p/7"));
}

#[tokio::test]
async fn every_answer_names_its_request_and_a_refusal_is_on_the_record_under_that_name() {
    let world = with_key().await;
    let gateway = world.gateway(GATEWAY, |_| {}).await;
    let name = |answer: &Answered| answer.headers["confidential-request-id"].to_str().unwrap().to_owned();
    let mut names = Vec::new();
    for path in [format!("/hls/{KEY}/1080p/0/keyinfo"), format!("/hls/{KEY}/1080p/0/key"), "/health".into()] {
        let answer = gateway.ask(Method::GET, &path, b"").await;
        names.push(name(&answer));
        answer.ok();
    }
    let passed_on = gateway.ask(Method::GET, "/v1/keys", b"").await;
    assert!(!name(&passed_on).starts_with("gateway-"), "the enclave's own name goes through");
    let refused = gateway.ask(Method::POST, &format!("/v1/keys/{KEY}/revoke"), b"{}").await;
    let by_us = gateway.ask(Method::GET, "/hls/Not%20A%20Key/x", b"").await;
    let not_derived = gateway.ask(Method::GET, "/hls/no-such-key/1080p/0/key", b"").await;
    for (answer, by_gateway) in [(by_us, true), (refused, false), (not_derived, false)] {
        let named = name(&answer);
        assert_eq!(named.starts_with("gateway-"), by_gateway, "{named}");
        let said: serde_json::Value = serde_json::from_slice(&answer.body.unwrap()).unwrap();
        assert_eq!(said["request_id"].as_str(), Some(named.as_str()));
        names.push(named);
    }
    let by_enclave = &names[names.len() - 2..];
    let on_record = |checked: &Checked| {
        let events = checked.of_type(AuditEventType::UnauthorizedAccess);
        by_enclave.iter().all(|name| events.iter().filter(|event| event.details.contains(name)).count() == 1)
    };
    world.check_until(on_record).await;
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 6, "each request has a name of its own");
}

#[tokio::test]
async fn without_the_token_or_for_another_host_there_is_nothing() {
    let world = with_key().await;
    let gateway = world.gateway(GATEWAY, |_| {}).await;
    let path = format!("/hls/{KEY}/1080p/0/key");
    let (authority, token) = gateway.url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let wrong: String = token.chars().rev().collect();
    let mut answers = Vec::new();
    for (base, host) in [
        (format!("http://{authority}"), authority),
        (format!("http://{authority}/{wrong}"), authority),
        (gateway.url.clone(), "films.test"),
        (gateway.url.clone(), "127.0.0.1"),
    ] {
        let answer = RunningGateway::fetch(Method::GET, &format!("{base}{path}"), &[("host", host)], b"").await;
        assert_eq!(answer.status, 404, "{base} {host}");
        let mut said: serde_json::Value = serde_json::from_slice(&answer.body.unwrap()).unwrap();
        said.as_object_mut().unwrap().remove("request_id").expect("a name of its own");
        answers.push(said);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "in the same words");
    let events = world.check().intact().of_type(AuditEventType::KeyUsed).len();
    assert_eq!(events, 0, "and the enclave never heard of it");
    gateway.ask(Method::GET, &path, b"").await.ok();
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_alone_and_serves_the_api() {
    let world = with_key().await;
    let socket = world.dir().join("gateway.sock");
    let gateway = world
        .gateway(GATEWAY, |settings| settings.listen = vec![format!("unix:{}", socket.display()).parse().unwrap()])
        .await;
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let health = gateway.ask(Method::GET, "/health", b"").await.ok();
    assert!(String::from_utf8_lossy(&health).contains(&world.serving().log_id.to_string()));
    let keys = gateway.ask(Method::GET, "/v1/keys", b"").await.ok();
    assert!(String::from_utf8_lossy(&keys).contains(KEY));
    assert_eq!(gateway.ask(Method::GET, &format!("/hls/{KEY}/c/keyinfo"), b"").await.code(), "NO_URL");
    assert_eq!(gateway.ask(Method::GET, &format!("/hls/{KEY}/c/0/key"), b"").await.ok().len(), 16);
}

#[tokio::test]
async fn content_goes_through_as_streams_with_verified_receipts_and_within_the_grants() {
    let world = with_key().await;
    let gateway = world.gateway(GATEWAY, |_| {}).await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
    for content in [&content[..], b"", b"small"] {
        let sealed = gateway.ask(Method::POST, &format!("/v1/keys/{KEY}/encrypt"), content).await;
        assert_eq!(sealed.headers["confidential-key"], format!("{KEY}#1"));
        assert!(sealed.headers.contains_key("confidential-receipt"));
        let sealed = sealed.ok();
        let opened = gateway.ask(Method::POST, "/v1/decrypt", &sealed).await.ok();
        assert!(opened == content);
        let mut broken = sealed.to_vec();
        let last = broken.len() - 1;
        broken[last] ^= 1;
        let answer = gateway.ask(Method::POST, "/v1/decrypt", &broken).await;
        assert!(!answer.status.is_success() || answer.body.is_err(), "a broken message has no proper end");
    }
    for (method, path, code) in [
        (Method::POST, "/v1/keys", "MALFORMED"),
        (Method::POST, "/v1/keys/content-film/revoke", "DENIED"),
        (Method::GET, "/v1/status", "DENIED"),
        (Method::GET, "/v1/nothing", "NO_SUCH_ROUTE"),
    ] {
        assert_eq!(gateway.ask(method, path, b"").await.code(), code, "{path}");
    }
}

#[tokio::test]
async fn a_restart_of_the_enclave_is_absorbed() {
    let mut world = with_key().await;
    let gateway = world.gateway(GATEWAY, |settings| settings.patience = Duration::from_secs(60)).await;
    let path = format!("/hls/{KEY}/1080p/0/key");
    let before = gateway.ask(Method::GET, &path, b"").await.ok();
    world.kill_enclave().await;
    let api = format!("/v1/keys/{KEY}/encrypt");
    let large = vec![7; 200_000];
    let asked = async {
        tokio::join!(
            gateway.ask(Method::PUT, &path, b""),
            gateway.ask(Method::GET, "/v1/keys", b""),
            gateway.ask(Method::POST, &api, &large),
        )
    };
    let image = world.image().clone();
    let (answers, ()) = tokio::join!(asked, async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        world.launch(&image).await.unwrap();
    });
    assert_eq!(answers.0.ok(), before);
    answers.1.ok();
    assert!(answers.2.ok().len() > large.len(), "a stream waits until there is somebody to send it to");
    world.check().intact();
}

#[tokio::test]
async fn patience_ends_and_a_revoked_key_needs_none() {
    let mut world = with_key().await;
    let gateway = world.gateway(GATEWAY, |settings| settings.patience = Duration::from_secs(2)).await;
    let path = format!("/hls/{KEY}/1080p/0/key");
    gateway.ask(Method::GET, &path, b"").await.ok();
    world.operator().revoke(KEY).await.unwrap();
    let refused = gateway.ask(Method::GET, &path, b"").await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (410, "REVOKED"));
    world.kill_enclave().await;
    let start = Instant::now();
    let gone = gateway.ask(Method::GET, &path, b"").await;
    assert!(start.elapsed() >= Duration::from_secs(1), "it tried");
    assert_eq!((gone.status.as_u16(), gone.headers.contains_key("retry-after")), (503, true));
    assert_eq!(gone.code(), "ENCLAVE_UNAVAILABLE");
}

#[tokio::test]
async fn it_listens_to_nobody_from_elsewhere_and_stops_when_told() {
    let world = with_key().await;
    let token = client::gateway::Token::generate(&transcode_confidential::entropy::OsEntropy).unwrap();
    let open = client::gateway::Settings::new(vec!["tcp:0.0.0.0:0".parse().unwrap()], token);
    let started = client::gateway::Gateway::start(world.caller(GATEWAY).client, open, Default::default()).await;
    assert!(matches!(started, Err(client::gateway::GatewayError::NotLocal(_))));
    let gateway = world.gateway(GATEWAY, |_| {}).await;
    let authority = gateway.url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    gateway.stop().await;
    assert!(tokio::net::TcpStream::connect(authority).await.is_err());
}
