//! What an enclave can be asked: keys, content, status, policy. Every answer that speaks of the record is held against it.

mod answer;
mod content;
mod data_keys;
mod forward;
mod keys;
mod log;
mod maintenance;
mod media;
mod reader;
mod remembering;
mod reports;
mod sealed;
mod source;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::Mutex;
use transcode_confidential::{
    ids::{KeyId, LogId},
    protocol::api::{self, ReceiptText, Status},
};

pub use {
    content::{ContentDone, DecryptRequest, EncryptRequest},
    data_keys::Released,
    forward::{AnswerBody, NotForwarded},
    log::LogView,
    media::MediaKey,
    reader::{Inclusion, LogPage, LogReader},
};

use remembering::Remembering;

use crate::{
    error::ClientError,
    log_memory::LogMemory,
    session::{Attested, Connection, RequestBody, Session, SessionError, empty},
};

/// A client of one server. Cheap to clone; clones share connections and what they know.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// Given by the caller for the next call that changes something; else each such call draws one.
    idempotency_key: Option<Arc<str>>,
}

struct Shared {
    session: Session,
    memory: LogMemory,
    accepted_log: Option<LogId>,
    remembering: Remembering,
    /// Whether a log may contradict what is remembered because it was restored.
    accept_restored: AtomicBool,
    /// The log as the newest attested key showed it. Held locked while it is checked, so that many calls check once.
    view: Mutex<Option<Arc<LogView>>>,
}

/// That a policy is in force now.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PolicyAdopted {
    /// Its version.
    pub version: u64,
    /// The verified receipt of the event that records it.
    pub receipt: ReceiptText,
}

/// Largest JSON reply that is read. A list of keys is the longest.
const REPLY_LIMIT: usize = 8 * 1024 * 1024;
/// How often a request is tried that may be repeated, or that was never sent.
const ATTEMPTS: usize = 3;

/// A request with a JSON body or none.
struct Call {
    method: Method,
    path: String,
    body: Option<(&'static str, Bytes)>,
    /// Whether it only takes something away: the enclave may hear of it even where its log cannot be checked now.
    takes_away: bool,
    again: Again,
}

/// When a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Also where a connection was lost, which leaves open whether it was carried out: it changes nothing, or its idempotency
    /// key has it carried out once.
    Lost,
    /// Only where it was never sent: each time that it is carried out counts.
    Unsent,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server", self.shared.session.endpoint()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that connects when it is first used and remembers logs in `memory`. A server that is known with another log
    /// is refused, except with the log `accepted_log`.
    pub fn new(session: Session, memory: LogMemory, accepted_log: Option<LogId>) -> Self {
        Self {
            shared: Arc::new(Shared {
                session,
                memory,
                accepted_log,
                remembering: Remembering::default(),
                accept_restored: AtomicBool::new(false),
                view: Mutex::new(None),
            }),
            idempotency_key: None,
        }
    }

    /// From here on a log that contradicts what is remembered is accepted where the policy authority had it taken up from an
    /// older copy. What was remembered is kept as evidence of what was lost.
    pub fn accept_restored(&self) {
        self.shared.accept_restored.store(true, Ordering::Relaxed);
    }

    /// A client whose one next call that changes something carries this idempotency key: sent again under the same key, within
    /// a day, it is answered again and nothing is done twice. Without this every call draws a key of its own, and is
    /// repeated under it where a connection is lost.
    #[must_use]
    pub fn repeatable_as(&self, idempotency_key: &str) -> Self {
        Self { shared: Arc::clone(&self.shared), idempotency_key: Some(idempotency_key.into()) }
    }

    /// The attested connections.
    pub fn session(&self) -> &Session {
        &self.shared.session
    }

    /// The state of the service.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.call(Call::get(api::STATUS.into())).await
    }

    /// Hands over a policy document that its authority signed.
    ///
    /// # Errors
    /// [`ClientError::Unverified`] where the enclave does not take it; any other [`ClientError`].
    pub async fn put_policy(&self, document: Vec<u8>) -> Result<PolicyAdopted, ClientError> {
        let body = Some((OCTETS, document.into()));
        let (body, view) = self.exchange(&Call { method: Method::PUT, body, ..Call::get(api::POLICY.into()) }).await?;
        let adopted: PolicyAdopted = answer::json(&body)?;
        self.keep_receipt(&view, &adopted.receipt.0).await?;
        Ok(adopted)
    }

    /// A connection to an attested enclave whose log continues what is remembered, and what was checked of it.
    async fn connection(&self) -> Result<(Connection<Attested>, Arc<LogView>), ClientError> {
        let mut connection = self.shared.session.connection().await?;
        let view = self.checked_log(&mut connection).await?;
        Ok((connection, view))
    }

    async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        self.exchange(&call).await.map(|(answer, _)| answer).and_then(|body| answer::json(&body))
    }

    /// The body of a successful answer, and the view of the log that it came under.
    async fn exchange(&self, call: &Call) -> Result<(Bytes, Arc<LogView>), ClientError> {
        let (response, view) = self.exchange_whole(call).await?;
        Ok((response.into_body(), view))
    }

    /// A successful answer with its headers, and the view of the log that it came under.
    async fn exchange_whole(&self, call: &Call) -> Result<(Response<Bytes>, Arc<LogView>), ClientError> {
        let mut attempts = 1;
        let key = call.idempotency_key(self)?;
        loop {
            let mut sent = Sent::No;
            match self.attempt(call, key.as_ref(), &mut sent).await {
                Err(ClientError::Session(error)) if attempts < ATTEMPTS && call.may_be_repeated(&error, sent) => {
                    attempts += 1
                }
                result => return result,
            }
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        key: Option<&HeaderValue>,
        sent: &mut Sent,
    ) -> Result<(Response<Bytes>, Arc<LogView>), ClientError> {
        let (mut connection, view) = match self.connection().await {
            Ok((connection, view)) => (connection, Some(view)),
            // The log cannot be held against what is remembered while the parent gives no proof. Who takes something away
            // need not wait for that: the enclave is attested, and nothing is released.
            Err(error) if call.takes_away && error.retryable() => (self.shared.session.connection().await?, None),
            Err(error) => return Err(error),
        };
        let timeouts = &self.shared.session.settings().timeouts;
        let request = call.request(key)?;
        *sent = Sent::Perhaps;
        let response = connection.fetch(request, REPLY_LIMIT, timeouts).await?;
        let response = answer::success(response)?;
        let view = match view {
            Some(view) => view,
            None => self.checked_log(&mut connection).await?,
        };
        self.shared.session.give_back(connection);
        Ok((response, view))
    }
}

/// Whether a request left this end before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// The connection was still being made.
    No,
    /// It was handed to a connection.
    Perhaps,
}

const JSON: &str = "application/json";
const OCTETS: &str = "application/octet-stream";

impl Call {
    const fn get(path: String) -> Self {
        Self { method: Method::GET, path, body: None, takes_away: false, again: Again::Lost }
    }

    fn post<T: Serialize>(path: String, body: &T) -> Result<Self, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| SessionError::Protocol(error.to_string()))?;
        Ok(Self { method: Method::POST, body: Some((JSON, body.into())), ..Self::get(path) })
    }

    fn that_takes_away(self) -> Self {
        Self { takes_away: true, ..self }
    }

    /// What makes it safe to send again: nothing for what changes nothing and for what no key makes safe, else the caller's key
    /// or a fresh one.
    fn idempotency_key(&self, client: &Client) -> Result<Option<HeaderValue>, ClientError> {
        if self.method == Method::GET || self.again == Again::Unsent {
            return Ok(None);
        }
        let key = match &client.idempotency_key {
            Some(key) => key.to_string(),
            None => {
                let mut random = [0; 16];
                client.session().settings().entropy.fill(&mut random).map_err(SessionError::from)?;
                hex::encode(random)
            }
        };
        let unsuitable = |_| SessionError::Protocol("the idempotency key fits in no header".into());
        Ok(Some(HeaderValue::try_from(key).map_err(unsuitable)?))
    }

    const fn may_be_repeated(&self, error: &SessionError, sent: Sent) -> bool {
        match (error, sent, self.again) {
            (SessionError::NotSent, ..) | (SessionError::Lost(_), Sent::No, _) => true,
            (SessionError::Lost(_), Sent::Perhaps, again) => matches!(again, Again::Lost),
            _ => false,
        }
    }

    fn request(&self, idempotency_key: Option<&HeaderValue>) -> Result<Request<RequestBody>, SessionError> {
        let mut request = Request::builder().method(self.method.clone()).uri(&self.path);
        if let Some(key) = idempotency_key {
            request = request.header(api::IDEMPOTENCY_HEADER, key);
        }
        let body = match &self.body {
            Some((kind, bytes)) => {
                request = request.header(CONTENT_TYPE, HeaderValue::from_static(kind));
                Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync()
            }
            None => empty(),
        };
        request.body(body).map_err(|error| SessionError::Protocol(error.to_string()))
    }
}

/// `/v1/keys/{id}`; the characters of a key id need no escaping in a path.
fn key_path(id: &KeyId) -> String {
    format!("{}/{id}", api::KEYS)
}
