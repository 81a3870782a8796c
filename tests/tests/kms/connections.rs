use std::sync::Arc;

use enclave_app::kms::{ByteStream, Dial, DialError, EgressDialer, dial};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

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
        config.limits.connect = std::time::Duration::from_millis(50);
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

/// The parent's side of the egress protocol, as small as can be.
async fn egress(kms: std::net::SocketAddr, allowed: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut enclave, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut target = vec![0; usize::from(enclave.read_u16().await.unwrap())];
                enclave.read_exact(&mut target).await.unwrap();
                if target != allowed.as_bytes() {
                    enclave.write_all(&[dial::EGRESS_REFUSED]).await.unwrap();
                    return;
                }
                let mut kms = TcpStream::connect(kms).await.unwrap();
                enclave.write_all(&[dial::EGRESS_CONNECTED]).await.unwrap();
                let _ = copy_bidirectional(&mut enclave, &mut kms).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_through_the_egress_leads_to_kms_or_says_why_not() {
    let setting = Setting::new().await;
    let through = |address: std::net::SocketAddr| {
        let endpoint = format!("tcp:{address}").parse().unwrap();
        setting.client_with_dialer(Arc::new(EgressDialer::new(endpoint, std::time::Duration::from_secs(2))))
    };
    let open = egress(setting.kms.address(), "kms.eu-west-1.amazonaws.com:443").await;
    through(open).generate_data_key(&content("a", 1)).await.unwrap();
    let shut = egress(setting.kms.address(), "kms.us-east-1.amazonaws.com:443").await;
    let error = through(shut).generate_data_key(&content("a", 1)).await.unwrap_err();
    assert_eq!(error.cause(), "egress-refused");
    assert!(error.to_string().contains("kms.eu-west-1.amazonaws.com:443"), "{error}");
}
