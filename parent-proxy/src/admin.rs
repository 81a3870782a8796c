//! Health and metrics for whoever runs this machine, over plain HTTP on loopback or a Unix socket.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use transport::{Drained, Limits, Listener, Stream, serve};

use crate::{credentials::Credentials, host::Host, metrics::Metrics};

const CONNECTIONS: usize = 32;
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// A connection is cut off after this time, whatever it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// | path | answer |
/// |---|---|
/// | `/healthz` | 200 while the process runs |
/// | `/readyz` | 200 while clients can be served, else 503 with the reason |
/// | `/metrics` | the Prometheus text format |
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) host: Option<Arc<Host>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stopping: CancellationToken,
}

impl Admin {
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: Listener,
        drain: Duration,
        shutdown: CancellationToken,
    ) -> Drained {
        let limits = Limits::new(CONNECTIONS, drain);
        let token = shutdown.clone();
        let handler = move |stream| Arc::clone(&self).connection(stream, token.clone());
        serve(listener, limits, shutdown, handler).await
    }

    async fn connection(self: Arc<Self>, stream: Stream, shutdown: CancellationToken) {
        let service = service_fn(|request| {
            let response = self.respond(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_PATIENCE)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            _ = connection => {}
            () = tokio::time::sleep(PATIENCE) => {}
            () = shutdown.cancelled() => {}
        }
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "alive\n".to_owned()),
            "/readyz" => match self.obstacle() {
                None => text(StatusCode::OK, "ready\n".to_owned()),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            "/metrics" => text(StatusCode::OK, self.figures()),
            _ => text(StatusCode::NOT_FOUND, "/healthz /readyz /metrics\n".to_owned()),
        }
    }

    /// The proxy's figures and, while they are news, the enclave's.
    fn figures(&self) -> String {
        let metrics = &self.metrics;
        let mut enclave = String::new();
        if let Some(host) = &self.host {
            let age = host.figures.expose(&mut enclave);
            metrics.enclave_report_age_seconds.set(age.map_or(0, |age| age.as_secs()));
            metrics.store_queue.set(host.store.waiting());
            let left = host.credentials.as_ref().and_then(Credentials::left);
            metrics.credentials_remaining_seconds.set(left.map_or(0, |left| left.as_secs()));
        }
        metrics.ready.set(self.obstacle().is_none().into());
        metrics.process.read(&metrics.resident_bytes, &metrics.files_open, &metrics.uptime_seconds);
        metrics.render() + &enclave
    }

    /// Why clients cannot be served now.
    fn obstacle(&self) -> Option<&'static str> {
        if self.stopping.is_cancelled() {
            return Some("the proxy shuts down");
        }
        let host = self.host.as_ref()?;
        if self.metrics.store_open.value() == 0 {
            return Some("the disk failed and the store is not open");
        }
        if !host.has_session() {
            return Some("no enclave has a session");
        }
        if self.metrics.store_reserve_released.value() != 0 {
            return Some("the disk is full");
        }
        None
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
