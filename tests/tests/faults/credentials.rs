//! The proxy's stream to the instance metadata service, which is plain HTTP: struck at every byte.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use enclave_app::host::HostLink;
use parent_proxy::{Dependencies, config::Config};
use testkit::{
    clock::JumpingClock,
    interposer::{
        Direction::{Back, Forth},
        Fault, Interposer, Strike,
    },
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use transcode_confidential::protocol::host::{Credentials, HostError, Reply, Request};
use transport::{Endpoint, Limits, Stream};

/// Most of the time is spent waiting for an answer whose end was struck.
const PROXIES: usize = 32;
const DOCUMENT: &str = r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"ROLE","SecretAccessKey":"s3cr3t","Token":"t0k3n","Expiration":"2199-01-31T18:00:00Z"}"#;

/// Answers as the instance metadata service does.
async fn metadata(mut stream: Stream) {
    let (mut text, mut byte) = (String::new(), [0]);
    while stream.read(&mut byte).await.unwrap_or(0) == 1 {
        text.push(char::from(byte[0]));
        if !text.ends_with("\r\n\r\n") {
            continue;
        }
        let roles = "/latest/meta-data/iam/security-credentials/";
        let (status, body) = if text.starts_with("PUT /latest/api/token HTTP/1.1\r\n") {
            ("200 OK", "the-token")
        } else if !text.contains("x-aws-ec2-metadata-token: the-token\r\n") {
            ("401 Unauthorized", "")
        } else if text.starts_with(&format!("GET {roles} HTTP/1.1\r\n")) {
            ("200 OK", "enclave-parent")
        } else if text.starts_with(&format!("GET {roles}enclave-parent HTTP/1.1\r\n")) {
            ("200 OK", DOCUMENT)
        } else {
            ("404 Not Found", "")
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        text.clear();
    }
}

/// A proxy, an enclave's session with it, and a metadata service behind an interposer.
struct Setting {
    imds: Interposer,
    clock: JumpingClock,
    passed: i64,
    link: HostLink,
    shutdown: CancellationToken,
    _serving: AbortOnDropHandle<()>,
    _dir: tempfile::TempDir,
}

impl Setting {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let service = Endpoint::Unix(dir.path().join("imds"));
        let listener = service.bind().await.unwrap();
        let serving = tokio::spawn(async move {
            let limits = Limits::new(64, Duration::ZERO);
            transport::serve(listener, limits, CancellationToken::new(), metadata).await;
        });
        let imds = Interposer::start(&Endpoint::Unix(dir.path().join("imds-wire")), service).await;
        let at = dir.path().display();
        let config = format!(
            "enclave = \"unix:{at}/enclave\"\n[host]\nlisten = \"unix:{at}/host\"\n[store]\ndirectory = \"{at}/log\"\nreserve = 0\n\
             [credentials]\nsource = \"imds\"\nendpoint = \"{}\"\n",
            imds.endpoint()
        );
        let (clock, shutdown) = (JumpingClock::default(), CancellationToken::new());
        let dependencies = Dependencies { clock: Arc::new(clock.clone()), ..Dependencies::system() };
        let config = Config::parse(&config, "test").unwrap();
        parent_proxy::start(config, dependencies, shutdown.clone()).await.unwrap();
        let host = Endpoint::Unix(dir.path().join("host"));
        let (link, _) =
            HostLink::open(&host, [1; 16], Duration::from_secs(30), &CancellationToken::new()).await.unwrap();
        Self { imds, clock, passed: 0, link, shutdown, _serving: AbortOnDropHandle::new(serving), _dir: dir }
    }

    /// What the enclave is told a good minute after it asked last.
    async fn ask(&mut self) -> Result<Credentials, HostError> {
        self.passed += 61;
        self.clock.jump_to(self.passed);
        match self.link.call(Request::Credentials).await {
            Ok(Reply::Credentials(credentials)) => Ok(credentials),
            Err(enclave_app::host::HostFailure::Refused(error)) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    /// How many strikes were met.
    async fn strike_all(mut self, strikes: Vec<Strike>) -> usize {
        let mut met = 0;
        for strike in strikes {
            self.imds.arm(Some(strike));
            match self.ask().await {
                // Nothing protects them on this stream; KMS refuses what is not as it was issued.
                Ok(_) | Err(HostError::NoCredentials) => {}
                Err(other) => panic!("{strike:?}: {other}"),
            }
            met += usize::from(self.imds.has_struck());
            self.imds.arm(None);
            let found = self.ask().await.unwrap_or_else(|error| panic!("{strike:?}: {error}"));
            let expected = Credentials::new("ROLE", "s3cr3t", "t0k3n", found.remaining_secs);
            assert!(found == expected, "{strike:?}");
        }
        self.shutdown.cancel();
        met
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_credentials_may_break_or_lie_at_any_byte() {
    let begun = Instant::now();
    let mut setting = Setting::new().await;
    setting.ask().await.unwrap();
    let mut strikes = Vec::new();
    for direction in [Forth, Back] {
        setting.imds.arm(None);
        setting.ask().await.unwrap();
        let length = setting.imds.carried(direction);
        println!("proxy to metadata service: {length} bytes {direction:?}");
        for offset in 0..length {
            for fault in [Fault::Cut, Fault::Garbled, Fault::Delayed(Duration::from_millis(2))] {
                strikes.push(Strike { direction, offset, fault });
            }
        }
    }
    let all = strikes.len();
    let mut shares = vec![Vec::new(); PROXIES];
    strikes.into_iter().enumerate().for_each(|(number, strike)| shares[number % PROXIES].push(strike));
    let mut met = 0;
    let settings = shares.into_iter().map(|share| tokio::spawn(async { Setting::new().await.strike_all(share).await }));
    for struck in settings.collect::<Vec<_>>() {
        met += struck.await.unwrap();
    }
    println!("proxy to metadata service: {all} cases, every byte, {met} met, {:.0?} in all", begun.elapsed());
    assert!(met * 10 > all * 9, "{met} of {all}");
}
