use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        connection::{CaptureSmithyConnection, ConnectionMetadata},
        http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
};
use aws_smithy_types::{body::SdkBody, retry::ErrorKind};
use http::Uri;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{CaptureConnection, capture_connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::aws_lc_rs, version};
use tower_service::Service;

use super::{
    clock::EnclaveTime,
    dial::{ByteStream, Dial, DialError},
    failure,
};

/// A KMS reply is at most some 20 KiB of JSON.
const MAX_REPLY: usize = 64 * 1024;
/// Below the 60 seconds after which KMS closes an idle connection.
const IDLE: Duration = Duration::from_secs(50);

/// An HTTP client for the SDK: HTTP/1.1 over TLS 1.2 or 1.3 over streams from `dialer`. Certificates are checked against
/// `roots` at the time that `time` tells, for every connection anew.
pub(super) fn http_client(
    dialer: Arc<dyn Dial>,
    roots: RootCertStore,
    time: EnclaveTime,
    connect_timeout: Duration,
    max_idle: usize,
) -> Result<SharedHttpClient, rustls::Error> {
    let mut tls = ClientConfig::builder_with_details(Arc::new(aws_lc_rs::default_provider()), Arc::new(time))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.resumption = Resumption::disabled();
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http1()
        .wrap_connector(DialService { dialer, connect_timeout });
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(max_idle)
        .build(https);
    let connector = SharedHttpConnector::new(KmsConnector { client });
    Ok(http_client_fn(move |_, _| connector.clone()))
}

/// One pool of connections behind the SDK's trait.
#[derive(Clone)]
struct KmsConnector {
    client: Client<HttpsConnector<DialService>, SdkBody>,
}

impl fmt::Debug for KmsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KmsConnector")
    }
}

impl HttpConnector for KmsConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let captured = capture_connection(&mut request);
        if let Some(sdk) = request.extensions().get::<CaptureSmithyConnection>() {
            // So that the SDK can keep a connection that misbehaved from being used again.
            sdk.set_connection_retriever(move || metadata_of(&captured));
        }
        let response = self.client.request(request);
        HttpConnectorFuture::new(async move {
            let (head, body) = response.await.map_err(|error| classified(error.into()))?.into_parts();
            // Read here, so that a reply that is too large is refused at once and one that breaks off is asked for again.
            let body = Limited::new(body, MAX_REPLY).collect().await.map_err(classified)?.to_bytes();
            // Boxed, because the SDK logs bodies that it can look into, and a reply may leak a key.
            let body = SdkBody::from_body_1_x(Full::new(body));
            HttpResponse::try_from(http::Response::from_parts(head, body))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// `None` until there is a connection.
fn metadata_of(captured: &CaptureConnection) -> Option<ConnectionMetadata> {
    captured.connection_metadata().as_ref()?;
    let captured = captured.clone();
    let poison = move || {
        if let Some(connection) = captured.connection_metadata().as_ref() {
            connection.poison();
        }
    };
    Some(ConnectionMetadata::builder().proxied(false).poison_fn(poison).build())
}

/// What cannot get better by itself is not tried again: an untrusted certificate, a host that is not allowed, a reply that
/// is too large to be one.
fn classified(error: BoxError) -> ConnectorError {
    let is_final = failure::find::<rustls::Error>(error.as_ref()).is_some()
        || failure::find::<LengthLimitError>(error.as_ref()).is_some()
        || matches!(failure::find(error.as_ref()), Some(DialError::Refused(_)));
    if is_final { ConnectorError::user(error) } else { ConnectorError::other(error, Some(ErrorKind::TransientError)) }
}

#[derive(Clone)]
struct DialService {
    dialer: Arc<dyn Dial>,
    connect_timeout: Duration,
}

impl Service<Uri> for DialService {
    type Response = TokioIo<ByteStream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let Self { dialer, connect_timeout } = self.clone();
        Box::pin(async move {
            let host = target.host().unwrap_or_default();
            let dialing = dialer.dial(host, target.port_u16().unwrap_or(443));
            let stream = tokio::time::timeout(connect_timeout, dialing).await.map_err(|_| DialError::TimedOut)??;
            Ok(TokioIo::new(stream))
        })
    }
}
