use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use serde_json::json;
use tracing::warn;

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

impl From<Trouble> for Reply {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NoSuchRoute => failure(404, "NO_SUCH_ROUTE", "no such route", false, ""),
            Trouble::NoUrl => failure(
                500,
                "NO_URL",
                "this gateway listens on no TCP address, so a packager could not fetch keys",
                false,
                "",
            ),
            Trouble::Body => failure(400, "MALFORMED", "the request's body ended early", false, ""),
            Trouble::Enclave(error) => {
                warn!(%error, "request failed");
                of_client(&error)
            }
        }
    }
}

fn of_client(error: &ClientError) -> Reply {
    if let Some(answer) = error.answer() {
        let code = answer.code.to_string();
        return failure(answer.code.status(), &code, &answer.message, answer.retryable, &answer.request_id);
    }
    let (status, code, retryable) = match error.kind() {
        ErrorKind::Unavailable => (503, "ENCLAVE_UNAVAILABLE", true),
        ErrorKind::Denied => (502, "ENCLAVE_REFUSES", false),
        // Something stands where the enclave should be, or it does not say the truth.
        ErrorKind::Verification => (502, "ENCLAVE_NOT_VERIFIED", false),
        _ => (500, "GATEWAY", false),
    };
    failure(status, code, &error.to_string(), retryable, "")
}

fn failure(status: u16, code: &str, message: &str, retryable: bool, request_id: &str) -> Reply {
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
