//! The enclave's own API, passed on for tools and libraries that cannot attest.

use std::io;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Method, Request, Response,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use serde_json::json;
use transcode_confidential::protocol::api::{IDEMPOTENCY_HEADER, REPLAYED_HEADER};

use super::{
    Shared,
    patience::{Patience, is_passing},
    reply::{self, Reply, Trouble},
};
use crate::{
    ClientError, NotForwarded,
    session::{RequestBody, SessionError},
};

/// Bodies up to this length are read whole, and can be sent again.
const SMALL: u64 = 64 * 1024;
/// Our own headers.
const OURS: &str = "confidential-";

/// Passes a request on. What may be repeated is, while the enclave is being started anew; a stream waits until there is a
/// connection for it, and is sent once.
pub(super) async fn forward(
    shared: &Shared,
    request: Request<Incoming>,
    path: &str,
    receipt_needed: bool,
) -> Result<Reply, Trouble> {
    let (head, body) = request.into_parts();
    let target = head.uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let outgoing = |body: RequestBody| {
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = target.parse().map_err(|_| Trouble::NoSuchRoute)?;
        *request.headers_mut() = passed(&head.headers, &[CONTENT_TYPE, CONTENT_LENGTH, ACCEPT]);
        Ok::<_, Trouble>(request)
    };
    let mut patience = Patience::new(shared.settings.patience);
    if body.size_hint().exact().is_none_or(|length| length > SMALL) {
        let request = outgoing(body.map_err(io::Error::other).boxed_unsync())?;
        let response = send_once(shared, request, receipt_needed, &mut patience).await?;
        return finish(shared, response).await;
    }
    let body = Limited::new(body, SMALL as usize).collect().await.map_err(|_| Trouble::Body)?.to_bytes();
    let whole = |body: &Bytes| Full::new(body.clone()).map_err(|never| match never {}).boxed_unsync();
    loop {
        let response = send_once(shared, outgoing(whole(&body))?, receipt_needed, &mut patience).await;
        let again = is_repeatable(&head.method, path, &head.headers);
        match response {
            Err(error) if again && is_passing(&error) && patience.pause(&error).await => {}
            Ok(response) if again && is_later(&response) => {
                let error = SessionError::NoAttestation("the enclave says: later".into()).into();
                if !patience.pause(&error).await {
                    return finish(shared, response).await;
                }
            }
            response => {
                patience.recovered();
                return finish(shared, response?).await;
            }
        }
    }
}

/// Whether the gateway has a verified enclave behind it.
pub(super) async fn health(shared: &Shared) -> Result<Reply, Trouble> {
    let patience = Patience::new(shared.settings.patience);
    let view = patience.keep_trying(|| shared.client.log()).await?;
    let state = view.checkpoint().state();
    Ok(reply::json(&json!({ "status": "ok", "log_id": view.log_id(), "size": state.size })))
}

type Answer = Response<crate::AnswerBody>;

/// Sends a request once, however long it takes until there is a connection to send it over.
async fn send_once(
    shared: &Shared,
    mut request: Request<RequestBody>,
    receipt_needed: bool,
    patience: &mut Patience,
) -> Result<Answer, ClientError> {
    loop {
        let NotForwarded { error, request: unsent } = match shared.client.forward(request, receipt_needed).await {
            Ok(answer) => return Ok(answer),
            Err(not) => not,
        };
        match unsent {
            Some(unsent) if is_passing(&error) => request = unsent,
            _ => return Err(error),
        }
        if !patience.pause(&error).await {
            return Err(error);
        }
    }
}

async fn finish(shared: &Shared, answer: Answer) -> Result<Reply, Trouble> {
    let streams = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
    let mut reply = if streams {
        answer.map(|body| body.boxed_unsync())
    } else {
        shared
            .client
            .verified_whole(answer)
            .await?
            .map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync())
    };
    let replayed = HeaderName::from_static(REPLAYED_HEADER);
    *reply.headers_mut() =
        passed(reply.headers(), &[CONTENT_TYPE, CONTENT_LENGTH, CACHE_CONTROL, RETRY_AFTER, replayed]);
    Ok(reply)
}

/// What goes through: our own headers, and those named.
fn passed(headers: &HeaderMap, named: &[HeaderName]) -> HeaderMap {
    let goes = |name: &HeaderName| {
        name.as_str().starts_with(OURS) || name.as_str() == IDEMPOTENCY_HEADER || named.contains(name)
    };
    headers.iter().filter(|(name, _)| goes(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_repeatable(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    method == Method::GET || path.contains("/media-keys/") || headers.contains_key(IDEMPOTENCY_HEADER)
}

fn is_later(answer: &Answer) -> bool {
    answer.status() == http::StatusCode::SERVICE_UNAVAILABLE
}
