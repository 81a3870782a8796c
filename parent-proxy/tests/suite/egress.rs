//! The egress, from the enclave's side of a running proxy.

use parent_proxy::{
    config::Target,
    egress::{Answer, preamble},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use transport::{Endpoint, Stream};

use crate::{
    enclave::SOON,
    world::{World, echo, parse},
};

const CONFIG: &str = r#"
[egress]
listen = "unix:$DIR/egress"
allow = ["kms.test:443", "localhost:$PORT", "closed.test:443", "nowhere.invalid:443"]
connect_timeout = "1s"
[egress.resolve]
"kms.test:443" = "unix:$DIR/kms"
"closed.test:443" = "unix:$DIR/closed"
"#;

async fn ask(world: &World, first: &[u8]) -> (Stream, Option<u8>) {
    let mut stream = world.proxy().addresses().egress.as_ref().unwrap().connect(SOON).await.unwrap();
    stream.write_all(first).await.unwrap();
    let answer = tokio::time::timeout(SOON, stream.read_u8()).await.expect("no answer").ok();
    (stream, answer)
}

fn target(text: &str) -> Vec<u8> {
    preamble(&text.parse::<Target>().unwrap())
}

async fn world() -> (World, u16) {
    let tcp = echo(&Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 }).await;
    let Endpoint::Tcp { port, .. } = tcp else { panic!("not TCP") };
    let world = World::start(&CONFIG.replace("$PORT", &port.to_string())).await;
    echo(&Endpoint::Unix(world.path("kms"))).await;
    (world, port)
}

#[tokio::test]
async fn allowed_targets_are_reached_by_override_or_by_name_and_bytes_go_both_ways() {
    let (world, port) = world().await;
    for name in ["kms.test:443".to_owned(), format!("localhost:{port}")] {
        let (mut stream, answer) = ask(&world, &target(&name)).await;
        assert_eq!(answer, Some(Answer::Connected as u8), "{name}");
        stream.write_all(b"hello kms").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"hello kms");
    }
    assert_eq!(world.proxy().metrics().egress_out_bytes_total.value(), 18);
}

#[tokio::test]
async fn anything_else_is_refused_and_closed() {
    let (world, _) = world().await;
    let other_port = format!("localhost:{}", 1);
    for name in
        ["kms.test:444", "evil.test:443", "xkms.test:443", "kms.test.evil:443", &other_port, "169.254.169.254:80"]
    {
        let (mut stream, answer) = ask(&world, &target(name)).await;
        assert_eq!(answer, Some(Answer::Refused as u8), "{name}");
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    }
    assert_eq!(world.proxy().metrics().egress_refused_total.value(), 6);
    for malformed in [&b"\0\0"[..], b"\xff\xff", b"\0\x0cKMS.TEST:443", b"\0\x04\xff\xff:1", b"\0\x0dkms.test:443\n"] {
        let (_, answer) = ask(&world, malformed).await;
        assert_eq!(answer, Some(Answer::Refused as u8), "{malformed:?}");
    }
    assert_eq!(world.proxy().metrics().egress_malformed_total.value(), 5);
}

#[tokio::test]
async fn an_allowed_target_that_does_not_answer_is_unreachable() {
    let (world, _) = world().await;
    for name in ["closed.test:443", "nowhere.invalid:443"] {
        let (mut stream, answer) = ask(&world, &target(name)).await;
        assert_eq!(answer, Some(Answer::Unreachable as u8), "{name}");
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    }
    assert_eq!(world.proxy().metrics().egress_unreachable_total.value(), 2);
}

#[tokio::test]
async fn a_reload_changes_the_allow_list_for_new_connections() {
    let (world, port) = world().await;
    let (mut open, _) = ask(&world, &target("kms.test:443")).await;
    let changed = CONFIG.replace("$PORT", &port.to_string()).replacen("kms.test:443\", ", "other.test:443\", ", 1);
    assert!(world.proxy().reload(parse(&changed, world.directory.path())).is_empty());
    let (_, answer) = ask(&world, &target("kms.test:443")).await;
    assert_eq!(answer, Some(Answer::Refused as u8));
    open.write_all(b"?").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'?', "what was open goes on");
}

#[tokio::test]
async fn how_connections_to_the_world_end_is_counted() {
    let (world, port) = world().await;
    let patient = CONFIG.replace("$PORT", &port.to_string());
    let impatient =
        patient.replacen("connect_timeout = \"1s\"", "connect_timeout = \"1s\"\nidle_timeout = \"300ms\"", 1);
    assert!(world.proxy().reload(parse(&impatient, world.directory.path())).is_empty());
    let (mut stream, answer) = ask(&world, &target("kms.test:443")).await;
    assert_eq!(answer, Some(Answer::Connected as u8));
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "nothing moved for too long");
    let metrics = world.proxy().metrics();
    let deadline = std::time::Instant::now() + SOON;
    while metrics.egress_timed_out_total.value() == 0 {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(metrics.egress_failed_total.value(), 0);
}
