use bytes::Bytes;
use client::{
    Client,
    gateway::{Gateway, Settings, Token},
};
use http::{HeaderMap, Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use transcode_confidential::entropy::OsEntropy;

/// A gateway that serves until this is dropped.
pub struct RunningGateway {
    /// Its first base URL.
    pub url: String,
    /// Itself.
    pub gateway: Gateway,
    shutdown: DropGuard,
}

/// What came back.
#[derive(Debug)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; an error where it has no proper end.
    pub body: Result<Bytes, hyper::Error>,
}

impl RunningGateway {
    pub(super) async fn start(client: Client, change: impl FnOnce(&mut Settings)) -> Self {
        let token = Token::generate(&OsEntropy).expect("randomness");
        let mut settings = Settings::new(vec!["tcp:127.0.0.1:0".parse().expect("an endpoint")], token);
        change(&mut settings);
        let shutdown = CancellationToken::new();
        let gateway = Gateway::start(client, settings, shutdown.clone()).await.expect("a gateway");
        Self { url: gateway.urls()[0].clone(), gateway, shutdown: shutdown.drop_guard() }
    }

    /// Asks the first listener.
    pub async fn ask(&self, method: Method, path: &str, body: &[u8]) -> Answered {
        fetch(method, &format!("{}{path}", self.url), &[], body).await
    }

    /// Asks any URL, `http://HOST:PORT/PATH` or `unix:SOCKET/PATH` with a socket that ends in `.sock`.
    pub async fn fetch(method: Method, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answered {
        fetch(method, url, headers, body).await
    }

    /// Stops as SIGTERM does.
    pub async fn stop(self) {
        drop(self.shutdown);
        self.gateway.drained().await;
    }
}

async fn fetch(method: Method, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answered {
    if let Some(rest) = url.strip_prefix("unix:") {
        let (socket, path) = rest.split_once(".sock").expect("a socket");
        let stream = UnixStream::connect(format!("{socket}.sock")).await.expect("it listens");
        return exchange(stream, method, "localhost", path, headers, body).await;
    }
    let rest = url.strip_prefix("http://").expect("a URL");
    let (authority, path) = rest.split_at(rest.find('/').expect("a path"));
    let stream = TcpStream::connect(authority).await.expect("it listens");
    exchange(stream, method, authority, path, headers, body).await
}

async fn exchange<S>(
    stream: S,
    method: Method,
    authority: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answered
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header(HOST, authority);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body))).expect("a request");
    let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes);
    Answered { status: head.status, headers: head.headers, body }
}

impl Answered {
    /// The body of a success.
    ///
    /// # Panics
    /// Where it is none, or has no proper end.
    pub fn ok(self) -> Bytes {
        let body = self.body.expect("a whole body");
        assert!(self.status.is_success(), "{} {}", self.status, String::from_utf8_lossy(&body));
        body
    }

    /// The code of a failure.
    ///
    /// # Panics
    /// Where there is none.
    pub fn code(self) -> String {
        let body = self.body.expect("a whole body");
        let object: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        object["code"].as_str().expect("a code").to_owned()
    }
}
