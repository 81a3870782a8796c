//! Credentials from every source, as the enclave gets them, and the admin endpoint.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parent_proxy::Dependencies;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use transcode_confidential::{
    protocol::host::{Credentials, HostError, Reply, Request},
    time::{Clock, Timestamp},
};
use transport::{Endpoint, Stream};

use crate::{
    enclave::{Connection, SOON},
    world::{World, served},
};

const CONFIG: &str = r#"
[host]
listen = "unix:$DIR/host"
[store]
directory = "$DIR/log"
reserve = 0
[admin]
listen = "tcp:127.0.0.1:0"
[credentials]
"#;

/// A clock that stands until it is moved.
#[derive(Clone)]
struct Still(Arc<AtomicU64>);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

impl Still {
    fn new() -> Self {
        let start: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        Self(Arc::new(AtomicU64::new(start.0)))
    }

    fn pass(&self, secs: u64) {
        self.0.fetch_add(secs * 1000, Ordering::SeqCst);
    }

    fn dependencies(&self) -> Dependencies {
        Dependencies { clock: Arc::new(self.clone()), ..Dependencies::system() }
    }
}

async fn ask(world: &World) -> Result<Credentials, HostError> {
    let (mut enclave, _) = Connection::hello(&world.host(), 1).await;
    match enclave.call(&Request::Credentials).await {
        Reply::Credentials(credentials) => Ok(credentials),
        Reply::Failed(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_is_read_again_when_fresh_credentials_are_due() {
    let clock = Still::new();
    let config = format!("{CONFIG}source = \"file\"\npath = \"$DIR/credentials\"");
    let world = World::with(&config, clock.dependencies()).await;
    assert_eq!(ask(&world).await, Err(HostError::NoCredentials));
    let write = |key: &str, until: &str| {
        let json = format!(
            r#"{{"Version":1,"AccessKeyId":"{key}","SecretAccessKey":"s","SessionToken":"t","Expiration":"{until}"}}"#
        );
        std::fs::write(world.path("credentials"), json).unwrap();
    };
    write("FIRST", "2026-01-31T13:00:00Z");
    assert_eq!(ask(&world).await, Ok(Credentials::new("FIRST", "s", "t", 3600)));
    write("SECOND", "2026-01-31T14:00:00Z");
    clock.pass(59);
    assert_eq!(ask(&world).await, Ok(Credentials::new("FIRST", "s", "t", 3541)), "asked for a moment ago");
    clock.pass(1141);
    assert_eq!(ask(&world).await, Ok(Credentials::new("SECOND", "s", "t", 6000)), "asked for again: looked up again");
    clock.pass(2000);
    std::fs::write(world.path("credentials"), "nonsense").unwrap();
    clock.pass(3700);
    assert_eq!(ask(&world).await, Ok(Credentials::new("SECOND", "s", "t", 300)), "what is there serves to its end");
    clock.pass(290);
    assert_eq!(ask(&world).await, Err(HostError::NoCredentials), "and not beyond");
    let metrics = world.proxy().metrics();
    assert_eq!((metrics.credentials_served_total.value(), metrics.credentials_failed_total.value()), (4, 2));
}

#[tokio::test]
async fn the_environment_and_the_configuration_give_lasting_ones() {
    let variables = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some("ENVIRONMENT".to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some("s".to_owned()),
        _ => None,
    };
    let dependencies = Dependencies { variables: Arc::new(variables), ..Dependencies::system() };
    let world = World::with(&format!("{CONFIG}source = \"environment\""), dependencies).await;
    assert_eq!(ask(&world).await, Ok(Credentials::new("ENVIRONMENT", "s", "", 3600)));
    let none = Dependencies { variables: Arc::new(|_| None), ..Dependencies::system() };
    let world = World::with(&format!("{CONFIG}source = \"environment\""), none).await;
    assert_eq!(ask(&world).await, Err(HostError::NoCredentials));
    let config = format!("{CONFIG}source = \"static\"\naccess_key_id = \"STATIC\"\nsecret_access_key = \"s\"");
    let world = World::start(&config).await;
    assert_eq!(ask(&world).await, Ok(Credentials::new("STATIC", "s", "", 3600)));
}

/// Answers as the instance metadata service does, to those who have a token.
async fn metadata(mut stream: Stream) {
    let mut text = String::new();
    let mut byte = [0];
    while stream.read(&mut byte).await.unwrap_or(0) == 1 {
        text.push(char::from(byte[0]));
        if !text.ends_with("\r\n\r\n") {
            continue;
        }
        let token = text.contains("x-aws-ec2-metadata-token: the-token\r\n");
        let roles = "/latest/meta-data/iam/security-credentials/";
        let (status, body) = if text.starts_with("PUT /latest/api/token HTTP/1.1\r\n") {
            assert!(text.contains("x-aws-ec2-metadata-token-ttl-seconds: 300\r\n"));
            ("200 OK", "the-token".to_owned())
        } else if !token {
            ("401 Unauthorized", String::new())
        } else if text.starts_with(&format!("GET {roles} HTTP/1.1\r\n")) {
            ("200 OK", "enclave-parent".to_owned())
        } else if text.starts_with(&format!("GET {roles}enclave-parent HTTP/1.1\r\n")) {
            let json = r#"{"Code":"Success","LastUpdated":"2026-01-31T11:00:00Z","Type":"AWS-HMAC","AccessKeyId":"ROLE","SecretAccessKey":"s","Token":"t","Expiration":"2026-01-31T18:00:00Z"}"#;
            ("200 OK", json.to_owned())
        } else {
            ("404 Not Found", String::new())
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        text.clear();
    }
}

#[tokio::test]
async fn the_metadata_service_is_asked_with_a_token() {
    let imds = served(&Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 }, metadata).await;
    let config = format!("{CONFIG}source = \"imds\"\nendpoint = \"{imds}\"");
    let world = World::with(&config, Still::new().dependencies()).await;
    assert_eq!(ask(&world).await, Ok(Credentials::new("ROLE", "s", "t", 6 * 3600)));
}

#[tokio::test]
async fn a_metadata_service_that_is_away_or_refuses_gives_none() {
    let refuses = served(&Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 }, |mut stream: Stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    for endpoint in [refuses.to_string(), "unix:/nonexistent/imds".to_owned()] {
        let world = World::start(&format!("{CONFIG}source = \"imds\"\nendpoint = \"{endpoint}\"")).await;
        assert_eq!(ask(&world).await, Err(HostError::NoCredentials));
    }
}

async fn get(world: &World, path: &str) -> (u16, String) {
    let mut stream = world.proxy().addresses().admin.as_ref().unwrap().connect(SOON).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn health_is_told_apart_from_readiness_and_everything_is_counted() {
    let config = format!("{CONFIG}source = \"static\"\naccess_key_id = \"STATIC\"\nsecret_access_key = \"s3cr3t\"");
    let world = World::start(&config).await;
    assert_eq!(get(&world, "/healthz").await, (200, "alive\n".into()));
    assert_eq!(get(&world, "/readyz").await, (503, "no enclave has a session\n".into()));
    let (mut enclave, _) = Connection::hello(&world.host(), 1).await;
    enclave.call(&Request::Credentials).await;
    assert_eq!(get(&world, "/readyz").await, (200, "ready\n".into()));
    let (status, metrics) = get(&world, "/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("\ntranscode_proxy_credentials_served_total 1\n"));
    assert!(metrics.contains("\ntranscode_proxy_host_session_alive 1\n"));
    assert!(metrics.contains("\ntranscode_proxy_store_open 1\n"));
    assert!(!metrics.contains("s3cr3t"));
    assert_eq!(get(&world, "/elsewhere").await.0, 404);
}
