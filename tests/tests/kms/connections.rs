use std::{net::SocketAddr, sync::Arc, time::Duration};

use enclave_app::kms::{ByteStream, Dial, DialError, EgressDialer};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::setting::{Setting, content};

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_one_after_the_other_share_one_connection() {
    let setting = Setting::new().await;
    let client = setting.client();
    for number in 1..=20 {
        client.generate_data_key(&content("a", number)).await.unwrap();
    }
    assert_eq!(setting.dialer.dials(), 1);
    assert_eq!(setting.dialer.targets(), ["kms.eu-west-1.amazonaws.com:443"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_calls_go_on_at_one_time_than_allowed() {
    let setting = Setting::new().await;
    let client = Arc::new(setting.client_with(|config| config.limits.concurrency = 3));
    let mut calls = tokio::task::JoinSet::new();
    for number in 1..=24 {
        let client = client.clone();
        calls.spawn(async move { client.generate_data_key(&content("a", number)).await.map(|_| ()) });
    }
    assert!(calls.join_all().await.into_iter().all(|result| result.is_ok()));
    assert_eq!(setting.kms.requests().len(), 24);
    assert!(setting.dialer.dials() <= 3, "{}", setting.dialer.dials());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kms_that_cannot_be_reached_is_named_as_such() {
    struct Nowhere(fn() -> DialError);
    impl Dial for Nowhere {
        fn dial<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, Result<ByteStream, DialError>> {
            Box::pin(async { Err((self.0)()) })
        }
    }
    let setting = Setting::new().await;
    for (error, cause, retryable) in [
        ((|| DialError::Unreachable("kms".to_owned())) as fn() -> DialError, "unreachable", true),
        (|| DialError::Egress(std::io::ErrorKind::ConnectionRefused.into()), "unreachable", true),
        (|| DialError::TimedOut, "unreachable", true),
        (|| DialError::Refused("kms.eu-west-1.amazonaws.com:443".to_owned()), "egress-refused", false),
    ] {
        let client = setting.client_with_dialer(Arc::new(Nowhere(error)));
        let error = client.generate_random(1).await.unwrap_err();
        assert_eq!((error.cause(), error.retryable()), (cause, retryable), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_hangs_is_given_up() {
    struct Hangs;
    impl Dial for Hangs {
        fn dial<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, Result<ByteStream, DialError>> {
            Box::pin(std::future::pending())
        }
    }
    let setting = Setting::new().await;
    let client = setting.client_with(|config| {
        config.dialer = Arc::new(Hangs);
        config.limits.connect = Duration::from_millis(50);
    });
    assert_eq!(client.generate_random(1).await.unwrap_err().cause(), "unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_under_another_root_is_refused_before_it_hears_anything() {
    let setting = Setting::new().await;
    let client = setting.client_with(|config| config.roots = enclave_app::kms::roots::amazon().unwrap());
    let error = client.generate_data_key(&content("a", 1)).await.unwrap_err();
    assert_eq!(error.cause(), "untrusted-server");
    assert!(error.is_bad_reply() && !error.retryable());
    assert_eq!(setting.kms.requests(), []);
    assert_eq!(setting.dialer.dials(), 1, "what is not trusted is not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_through_the_parent_leads_to_kms_or_says_why_not() {
    let setting = Setting::new().await;
    let client = |parent: &Parent| {
        setting.client_with_dialer(Arc::new(EgressDialer::new(parent.egress(), Duration::from_secs(2))))
    };
    let open = Parent::start("kms.eu-west-1.amazonaws.com:443", setting.kms.address()).await;
    let through = client(&open);
    for number in 1..=5 {
        through.generate_data_key(&content("a", number)).await.unwrap();
    }
    let shut = Parent::start("kms.us-east-1.amazonaws.com:443", setting.kms.address()).await;
    let error = client(&shut).generate_data_key(&content("a", 1)).await.unwrap_err();
    assert_eq!((error.cause(), error.retryable()), ("egress-refused", false));
    assert!(error.to_string().contains("kms.eu-west-1.amazonaws.com:443"), "{error}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let astray = Parent::start("kms.eu-west-1.amazonaws.com:443", nobody).await;
    let error = client(&astray).generate_data_key(&content("a", 1)).await.unwrap_err();
    assert_eq!((error.cause(), error.retryable()), ("unreachable", true));
    assert!(error.to_string().contains("cannot connect to"), "{error}");
}

/// The parent proxy, as far as its egress; what it allows leads to `kms`.
struct Parent {
    proxy: parent_proxy::Proxy,
    shutdown: CancellationToken,
}

impl Parent {
    async fn start(allowed: &str, kms: SocketAddr) -> Self {
        let config = format!(
            "enclave = \"tcp:127.0.0.1:1\"\n[egress]\nlisten = \"tcp:127.0.0.1:0\"\nallow = [\"{allowed}\"]\n\
             [egress.resolve]\n\"{allowed}\" = \"tcp:{kms}\"\n"
        );
        let config = parent_proxy::config::Config::parse(&config, "test").unwrap();
        let shutdown = CancellationToken::new();
        let proxy = parent_proxy::start(config, parent_proxy::Dependencies::system(), shutdown.clone()).await.unwrap();
        Self { proxy, shutdown }
    }

    fn egress(&self) -> transport::Endpoint {
        self.proxy.addresses().egress.clone().unwrap()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
