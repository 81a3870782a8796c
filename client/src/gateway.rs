//! The gateway: plain HTTP for tools that cannot attest an enclave, such as ffmpeg and curl, on the machine that they run on.
//!
//! In comes HTTP/1.1 on a unix socket that only its owner can open, or on loopback under a path that nobody can guess; out
//! goes the attested channel, as the gateway's own principal. What a tool gets was verified here first: the attestation, the
//! log, every receipt.
//!
//! | module | what it is |
//! |---|---|
//! | `door` | who gets in: tokens and `Host` |
//! | `route` | what a path stands for |
//! | `hls` | key info and media keys for packagers |
//! | `forward` | everything under `/v1/`, passed on |
//! | `patience` | what is tried again, and for how long |
//! | `reply` | answers, and what failures look like |

mod door;
mod forward;
mod hls;
mod patience;
mod reply;
mod route;

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use http::{Method, Request};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use transport::{BindError, Drained, Endpoint, Limits, Listener, Slots, Stream};

pub use door::{Token, TokenError};
pub use hls::{KeyUri, KeyUriError};

use crate::Client;
use door::{Door, Entrance};
use reply::{Reply, RequestId, Trouble};
use route::Route;

/// Time for the head of a request.
const REQUEST_HEAD: Duration = Duration::from_secs(15);
/// Largest head of a request, in bytes.
const BUFFER: usize = 64 * 1024;

/// How a gateway works.
#[derive(Debug)]
pub struct Settings {
    /// Where it listens: `unix:PATH`, and `tcp:` with a loopback address.
    pub listen: Vec<Endpoint>,
    /// The secret part of the path on TCP.
    pub token: Token,
    /// Where players find media keys; `None` for this gateway itself.
    pub key_uri: Option<KeyUri>,
    /// Seconds of a period, where a packager does not say which period it wants.
    pub period: NonZeroU64,
    /// How long an enclave that cannot be reached, or that says "later", keeps a request waiting.
    pub patience: Duration,
    /// Connections at the same time.
    pub connections: usize,
    /// How long requests may go on after shutdown began.
    pub drain: Duration,
}

impl Settings {
    /// Listening there, with defaults for the rest: periods of a minute, ten seconds of patience, 256 connections.
    pub const fn new(listen: Vec<Endpoint>, token: Token) -> Self {
        Self {
            listen,
            token,
            key_uri: None,
            period: match NonZeroU64::new(60) {
                Some(period) => period,
                None => NonZeroU64::MIN,
            },
            patience: Duration::from_secs(10),
            connections: 256,
            drain: Duration::from_secs(10),
        }
    }
}

/// Why a gateway does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// It would be open to other machines.
    #[error("{0} is neither a unix socket nor a loopback address: whoever reached it could use this identity's grants")]
    NotLocal(Endpoint),
    /// An endpoint cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A running gateway. It serves until the token that it was started with is cancelled, whether or not this is kept.
#[derive(Debug)]
pub struct Gateway {
    urls: Vec<String>,
    serving: JoinSet<Drained>,
}

/// What every request works with.
struct Shared {
    client: Client,
    settings: Settings,
    /// The first URL on TCP: what packagers and players are sent to.
    urls: Option<door::Urls>,
}

impl Gateway {
    /// Binds every endpoint and serves. When this returns, connections are taken; the enclave is first asked when somebody
    /// asks here.
    ///
    /// # Errors
    /// [`GatewayError`]; nothing is left running then.
    pub async fn start(client: Client, settings: Settings, shutdown: CancellationToken) -> Result<Self, GatewayError> {
        if let Some(open) = settings.listen.iter().find(|endpoint| !door::is_local(endpoint)) {
            return Err(GatewayError::NotLocal(open.clone()));
        }
        let mut bound: Vec<(Listener, Door)> = Vec::new();
        for endpoint in &settings.listen {
            let listener = endpoint.bind().await?;
            let door = Door::of(listener.endpoint(), &settings.token);
            bound.push((listener, door));
        }
        let urls: Vec<String> = bound.iter().map(|(listener, door)| door.url(listener.endpoint())).collect();
        let shared = Arc::new(Shared { urls: bound.iter().find_map(|(_, door)| door.urls()), client, settings });
        let limits = Limits { slots: Arc::new(Slots::new(shared.settings.connections)), drain: shared.settings.drain };
        let mut serving = JoinSet::new();
        for (listener, door) in bound {
            info!(listen = %listener.endpoint(), enclave = %shared.client.session().endpoint(), "gateway serving");
            let (shared, door, stopping) = (Arc::clone(&shared), Arc::new(door), shutdown.clone());
            serving.spawn(transport::serve(listener, limits.clone(), shutdown.clone(), move |stream| {
                connection(Arc::clone(&shared), Arc::clone(&door), stream, stopping.clone())
            }));
        }
        Ok(Self { urls, serving })
    }

    /// Its base URLs, in the order of `listen`. Those on TCP are secrets: whoever has one can use this gateway.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Waits until it has stopped.
    pub async fn drained(mut self) -> Drained {
        let mut total = Drained::default();
        while let Some(ended) = self.serving.join_next().await {
            let ended = ended.unwrap_or_default();
            total.accepted += ended.accepted;
            total.aborted += ended.aborted;
        }
        total
    }
}

async fn connection(shared: Arc<Shared>, door: Arc<Door>, stream: Stream, shutdown: CancellationToken) {
    let service = service_fn(|request| {
        let (shared, door) = (Arc::clone(&shared), Arc::clone(&door));
        async move { Ok::<_, std::convert::Infallible>(answer(&shared, &door, request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST_HEAD).max_buf_size(BUFFER).half_close(true);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended early");
    }
}

async fn answer(shared: &Shared, door: &Door, request: Request<Incoming>) -> Reply {
    let id = RequestId::new(&*shared.client.session().settings().entropy);
    let answered = route(shared, door, request).await;
    id.name(answered.unwrap_or_else(|trouble| trouble.reply(&id)))
}

async fn route(shared: &Shared, door: &Door, request: Request<Incoming>) -> Result<Reply, Trouble> {
    // A token in a path is a secret: paths are not logged before it is taken off.
    let Some((entrance, path)) = door.admit(&request) else {
        debug!("a request without the token, or for another host");
        return Err(Trouble::NoSuchRoute);
    };
    let Some(route) = Route::parse(&path) else { return Err(Trouble::NoSuchRoute) };
    let method = request.method().clone();
    match (entrance, route) {
        (_, Route::MediaKey { key, content, period }) if is_fetch(&method) => {
            hls::media_key(shared, &key, &content, period).await
        }
        // Players get keys, and nothing else.
        (Entrance::Players, _) => Err(Trouble::NoSuchRoute),
        (Entrance::Tools, Route::KeyInfo { key, content, period }) if is_fetch(&method) => {
            hls::key_info(shared, &key, &content, period)
        }
        (Entrance::Tools, Route::Health) if method == Method::GET => forward::health(shared).await,
        (Entrance::Tools, Route::Api { receipt_needed }) => {
            forward::forward(shared, request, &path, receipt_needed).await
        }
        _ => Err(Trouble::NoSuchRoute),
    }
}

/// ffmpeg fetches by GET, and by PUT where its own output goes out by PUT.
fn is_fetch(method: &Method) -> bool {
    method == Method::GET || method == Method::PUT
}
