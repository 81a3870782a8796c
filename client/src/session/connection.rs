use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use ::transport::{Endpoint, Stream};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HOST};
use http_body_util::{BodyExt as _, Empty, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{task::JoinHandle, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use transcode_confidential::{
    attestation::{
        CALLER_EXPORTER, Freshness, MAX_SIZE, Nonce, NoncePath, Purpose, UnverifiedDocument, UserData, caller_nonce,
    },
    protocol::api,
};

use super::{
    Attestation, CallerAttestor, Settings, Timeouts,
    error::SessionError,
    tls::{self, ServerKey},
    transport::TlsTransport,
};

/// Body of a request.
pub type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// One HTTP connection within TLS 1.3. What may be done with it depends on `S`: [`Unattested`] or [`Attested`].
#[derive(Debug)]
pub struct Connection<S> {
    sender: SendRequest<RequestBody>,
    driver: Driver,
    /// What only the two ends of this TLS session know.
    exporter: Option<[u8; 32]>,
    state: S,
}

/// The peer holds some key, and that is all that is known of it. It is asked for its attestation document, nothing else,
/// and has seen no client certificate.
#[derive(Debug)]
pub struct Unattested {
    key: ServerKey,
}

/// The peer holds the key that a verified, live document attests; it has seen the client certificate.
#[derive(Debug)]
pub struct Attested {
    attestation: Arc<Attestation>,
    /// Until when this end relies on having attested itself.
    caller_until: Option<Instant>,
}

/// The enclave takes a caller for an attested one for an hour; a request should not come as that ends.
const CALLER_TIME: Duration = Duration::from_secs(50 * 60);

impl Connection<Unattested> {
    /// Connects to whoever answers.
    ///
    /// # Errors
    /// [`SessionError::Unreachable`], [`SessionError::TimedOut`], [`SessionError::Lost`], [`SessionError::Tls`].
    pub async fn open(endpoint: &Endpoint, timeouts: &Timeouts) -> Result<Self, SessionError> {
        let stream = connect(endpoint, tls::unattested().map_err(SessionError::Tls)?, timeouts).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let leaf = certificates.first().ok_or_else(|| SessionError::Protocol("no server certificate".into()))?;
        let key = ServerKey::of(leaf).map_err(SessionError::Tls)?;
        Self::start(stream, Unattested { key }).await
    }

    /// Asks for a document over this connection's key and verifies it. The connection ends with this: whatever follows
    /// goes over new ones, to the attested key.
    ///
    /// # Errors
    /// [`SessionError::Attestation`] and [`SessionError::KeyNotAttested`], besides those of any exchange.
    pub async fn attest(mut self, settings: &Settings) -> Result<Attestation, SessionError> {
        let nonce = Nonce::generate(&*settings.entropy)?;
        let path = format!("{}?nonce={}&shared=true", api::ATTESTATION, hex::encode(nonce.as_bytes()));
        let request = Request::get(path).body(empty()).map_err(|error| SessionError::Protocol(error.to_string()))?;
        let response = self.exchange(request, &settings.timeouts).await?;
        let status = response.status();
        let shared = response.headers().get(api::NONCE_PATH_HEADER).cloned();
        let received = collect(response, MAX_SIZE, &settings.timeouts).await?;
        if !status.is_success() {
            let why = serde_json::from_slice::<api::ApiError>(&received).map(|error| error.to_string());
            return Err(SessionError::NoAttestation(why.unwrap_or_else(|_| format!("status {status}"))));
        }
        // A document may answer the nonces of others too; then it says where ours lies among them.
        let nonce = match shared {
            None => nonce,
            Some(path) => {
                let path = path.to_str().ok().and_then(|path| path.parse::<NoncePath>().ok());
                path.and_then(|path| path.answers(&nonce))
                    .ok_or_else(|| SessionError::Protocol("the path from the nonce to the document".into()))?
            }
        };
        let now = settings.clock.now();
        let document = UnverifiedDocument::parse(&received)?.verify_live(
            &settings.root,
            now,
            Freshness::with_nonce(nonce),
            &settings.image,
        )?;
        let UserData::Channel { log_id, epoch } = document.require_purpose(Purpose::Channel)? else {
            return Err(SessionError::Protocol("the document's purpose".into()));
        };
        if document.public_key() != Some(self.state.key.as_der()) {
            return Err(SessionError::KeyNotAttested);
        }
        Ok(Attestation { document, key: self.state.key, log_id, epoch, verified_at: now })
    }
}

impl Connection<Attested> {
    /// Connects to the holder of the attested key, and shows the identity to nobody else.
    ///
    /// # Errors
    /// [`SessionError::KeyChanged`] where somebody else answers; those of [`Connection::<Unattested>::open`].
    pub async fn open(
        endpoint: &Endpoint,
        attestation: Arc<Attestation>,
        settings: &Settings,
    ) -> Result<Self, SessionError> {
        let config = tls::attested(attestation.key.clone(), settings.identity.as_ref()).map_err(SessionError::Tls)?;
        let stream = connect(endpoint, config, &settings.timeouts)
            .await
            .map_err(|error| if error.is_pin_mismatch() { SessionError::KeyChanged } else { error })?;
        Self::start(stream, Attested { attestation, caller_until: None }).await
    }

    /// The attestation of the peer.
    pub const fn attestation(&self) -> &Arc<Attestation> {
        &self.state.attestation
    }

    /// Sends a request and returns the head of its response; the body follows as it comes.
    ///
    /// # Errors
    /// [`SessionError::Lost`], [`SessionError::IdentityRefused`], [`SessionError::Tls`]; with [`SessionError::NotSent`] the
    /// request comes back.
    pub async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, SendError> {
        self.request(request).await
    }

    /// Sends a request and collects its response, of at most `limit` bytes, within the time that a response may take.
    ///
    /// # Errors
    /// Those of [`Connection::send`], [`SessionError::TimedOut`], [`SessionError::Protocol`] where the response is larger.
    pub async fn fetch(
        &mut self,
        request: Request<RequestBody>,
        limit: usize,
        timeouts: &Timeouts,
    ) -> Result<Response<Bytes>, SessionError> {
        let (head, body) = self.exchange(request, timeouts).await?.into_parts();
        let body = collect(Response::new(body), limit, timeouts).await?;
        Ok(Response::from_parts(head, body))
    }

    /// Attests this caller to the enclave, for this connection: answers a challenge, bound to the TLS session.
    ///
    /// # Errors
    /// [`SessionError::CallerNotAttested`] where there is no document or it is refused; those of [`Connection::fetch`].
    pub async fn attest_caller(
        &mut self,
        caller: &dyn CallerAttestor,
        timeouts: &Timeouts,
    ) -> Result<api::CallerAttested, SessionError> {
        const REPLY_LIMIT: usize = 64 * 1024;
        let user_data = UserData::Caller { log_id: self.state.attestation.log_id }.encode();
        let exporter = self.exporter.ok_or_else(|| SessionError::Protocol("TLS exports no key".into()))?;
        let mut call = async |request| -> Result<Bytes, SessionError> {
            let response = self.fetch(request, REPLY_LIMIT, timeouts).await?;
            if response.status().is_success() {
                return Ok(response.into_body());
            }
            let status = response.status();
            let why = serde_json::from_slice::<api::ApiError>(response.body()).map(|error| error.to_string());
            Err(SessionError::CallerNotAttested(why.unwrap_or_else(|_| format!("status {status}"))))
        };
        let malformed = |error: String| SessionError::Protocol(error);
        let ask = Request::post(api::CALLER_CHALLENGE).body(empty()).map_err(|error| malformed(error.to_string()))?;
        let challenge: api::CallerChallenge =
            serde_json::from_slice(&call(ask).await?).map_err(|error| malformed(error.to_string()))?;
        let nonce = caller_nonce(&exporter, challenge.challenge.as_bytes());
        let document = caller.attest(nonce.as_bytes(), &user_data).await;
        let document = document.map_err(|error| SessionError::CallerNotAttested(error.to_string()))?;
        let body = Full::new(Bytes::from(document)).map_err(|never| match never {}).boxed_unsync();
        let answer = Request::put(api::CALLER).body(body).map_err(|error| malformed(error.to_string()))?;
        let until = Instant::now() + CALLER_TIME;
        let attested = serde_json::from_slice(&call(answer).await?).map_err(|error| malformed(error.to_string()))?;
        self.state.caller_until = Some(until);
        Ok(attested)
    }

    /// Whether a further request may be sent, as far as this end knows.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed() && self.state.caller_until.is_none_or(|until| Instant::now() < until)
    }

    pub(super) fn renew(&mut self, attestation: Arc<Attestation>) {
        self.state.attestation = attestation;
    }
}

impl<S> Connection<S> {
    async fn start(stream: TlsStream<Stream>, state: S) -> Result<Self, SessionError> {
        let exporter = stream.get_ref().1.export_keying_material([0; 32], CALLER_EXPORTER, None).ok();
        let (sender, connection) = handshake(TokioIo::new(TlsTransport::new(stream)))
            .await
            .map_err(|error| SessionError::from_transport(&error))?;
        Ok(Self { sender, driver: Driver(Some(tokio::spawn(connection))), exporter, state })
    }

    async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        timeouts: &Timeouts,
    ) -> Result<Response<Incoming>, SessionError> {
        let within = timeouts.response;
        match timeout(within, self.request(request)).await {
            Ok(result) => result.map_err(|failed| failed.error),
            Err(_) => Err(SessionError::TimedOut { what: "response", within }),
        }
    }

    async fn request(&mut self, mut request: Request<RequestBody>) -> Result<Response<Incoming>, SendError> {
        // HTTP/1.1 wants some name; the key says who answers.
        request.headers_mut().insert(HOST, HeaderValue::from_static("enclave"));
        if self.sender.ready().await.is_err() {
            return Err(self.unsent(request).await);
        }
        match self.sender.try_send_request(request).await {
            Ok(response) => Ok(response),
            Err(mut failed) => match failed.take_message() {
                Some(request) => Err(self.unsent(request).await),
                None => Err(match SessionError::from_transport(failed.error()) {
                    SessionError::Lost(detail) => self.driver.failure().await.unwrap_or(SessionError::Lost(detail)),
                    other => other,
                }
                .into()),
            },
        }
    }

    async fn unsent(&mut self, request: Request<RequestBody>) -> SendError {
        match self.driver.failure().await {
            Some(refused) => refused.into(),
            None => SendError { error: SessionError::NotSent, request: Some(Box::new(request)) },
        }
    }
}

/// Why a request has no response, and the request itself where it was never sent.
#[derive(Debug)]
pub struct SendError {
    /// Why.
    pub error: SessionError,
    /// With [`SessionError::NotSent`]: the request.
    pub request: Option<Box<Request<RequestBody>>>,
}

impl From<SessionError> for SendError {
    fn from(error: SessionError) -> Self {
        Self { error, request: None }
    }
}

/// The task that moves a connection's bytes. It ends with the connection.
#[derive(Debug)]
struct Driver(Option<JoinHandle<Result<(), hyper::Error>>>);

/// A connection that failed under a request ends at once; this only keeps a surprise from becoming a hang.
const END_OF_FAILED_CONNECTION: Duration = Duration::from_secs(1);

impl Driver {
    /// What the peer said in TLS as it closed the connection: a certificate is refused after the handshake, perhaps
    /// before the first request, perhaps under it, and only the connection itself hears why.
    async fn failure(&mut self) -> Option<SessionError> {
        let task = self.0.take()?;
        let Ok(Ok(Err(error))) = timeout(END_OF_FAILED_CONNECTION, task).await else { return None };
        match SessionError::from_transport(&error) {
            SessionError::Lost(_) => None,
            refused => Some(refused),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// A request body without content.
pub fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

async fn connect(
    endpoint: &Endpoint,
    config: rustls::ClientConfig,
    timeouts: &Timeouts,
) -> Result<TlsStream<Stream>, SessionError> {
    let stream = endpoint.connect(timeouts.connect).await?;
    let within = timeouts.handshake;
    let handshake = TlsConnector::from(Arc::new(config)).connect(tls::server_name(), stream);
    match timeout(within, handshake).await {
        Ok(result) => result.map_err(|error| SessionError::from_transport(&error)),
        Err(_) => Err(SessionError::TimedOut { what: "TLS handshake", within }),
    }
}

async fn collect(response: Response<Incoming>, limit: usize, timeouts: &Timeouts) -> Result<Bytes, SessionError> {
    let within = timeouts.response;
    match timeout(within, Limited::new(response.into_body(), limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(SessionError::from_transport(&*error)),
            Err(_) => Err(SessionError::Protocol(format!("a response of more than {limit} bytes"))),
        },
        Err(_) => Err(SessionError::TimedOut { what: "complete response", within }),
    }
}
