use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, Entry, RETRY_AFTER},
};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use serde_json::json;
use tracing::warn;
use transcode_confidential::{entropy::Entropy, protocol::api::REQUEST_ID_HEADER};

use crate::{ClientError, ErrorKind};

/// What goes back to a tool.
pub(super) type Reply = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

/// Why a tool does not get what it asked for.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No token, another host, an unknown path or method: the same words for all.
    NoSuchRoute,
    /// Key info names URLs, and there is none on TCP.
    NoUrl,
    /// A request body that ends early.
    Body,
    /// The enclave refuses, cannot be reached, or is not believed.
    Enclave(ClientError),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Enclave(error)
    }
}

/// Names a request at this gateway, where the enclave has not named it.
pub(super) struct RequestId(String);

impl RequestId {
    /// A fresh one.
    pub(super) fn new(entropy: &dyn Entropy) -> Self {
        let mut id = [0; 8];
        // An id of zeros names the request worse, and does no other harm.
        let _ = entropy.fill(&mut id);
        Self(format!("gateway-{}", hex::encode(id)))
    }

    /// The reply under this name, unless it has one of the enclave's.
    pub(super) fn name(&self, mut reply: Reply) -> Reply {
        if let (Entry::Vacant(place), Ok(id)) =
            (reply.headers_mut().entry(REQUEST_ID_HEADER), HeaderValue::from_str(&self.0))
        {
            place.insert(id);
        }
        reply
    }
}

impl Trouble {
    /// What the tool is told.
    pub(super) fn reply(&self, id: &RequestId) -> Reply {
        let message = match self {
            Self::NoSuchRoute => return failure(404, "NO_SUCH_ROUTE", "no such route", false, id),
            Self::NoUrl => "this gateway listens on no TCP address, so a packager could not fetch keys",
            Self::Body => return failure(400, "MALFORMED", "the request's body ended early", false, id),
            Self::Enclave(error) => return of_client(error, id),
        };
        failure(500, "NO_URL", message, false, id)
    }
}

fn of_client(error: &ClientError, id: &RequestId) -> Reply {
    if let Some(answer) = error.answer() {
        let (code, theirs) = (answer.code.to_string(), RequestId(answer.request_id.clone()));
        warn!(%error, request_id = theirs.0, "request refused");
        let reply = failure(answer.code.status(), &code, &answer.message, answer.retryable, &theirs);
        return theirs.name(reply);
    }
    warn!(%error, request_id = id.0, "request failed");
    let (status, code, retryable) = match error.kind() {
        ErrorKind::Unavailable => (503, "ENCLAVE_UNAVAILABLE", true),
        ErrorKind::Denied => (502, "ENCLAVE_REFUSES", false),
        // Something stands where the enclave should be, or it does not say the truth.
        ErrorKind::Verification => (502, "ENCLAVE_NOT_VERIFIED", false),
        _ => (500, "GATEWAY", false),
    };
    failure(status, code, &error.to_string(), retryable, id)
}

fn failure(status: u16, code: &str, message: &str, retryable: bool, RequestId(request_id): &RequestId) -> Reply {
    let object = json!({ "code": code, "message": message, "retryable": retryable, "request_id": request_id });
    let mut reply = json(&object);
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if retryable {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    reply
}

pub(super) fn json(object: &serde_json::Value) -> Reply {
    whole(object.to_string().into(), "application/json")
}

pub(super) fn text(text: String) -> Reply {
    whole(text.into(), "text/plain; charset=utf-8")
}

/// A key: nothing on its way may keep it.
pub(super) fn secret(bytes: Vec<u8>) -> Reply {
    whole(bytes.into(), "application/octet-stream")
}

fn whole(bytes: Bytes, kind: &'static str) -> Reply {
    let mut reply = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
