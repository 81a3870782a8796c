//! What a server says, unless its script has something else in mind.

use std::{sync::atomic::Ordering, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use transcode_confidential::{
    audit::tree::consistency_proof,
    ids::KeyVersion,
    keys::{KeyRotationPolicy, KeyState, RotationNeed},
    protocol::api::{self, ApiError, ConsistencyReply, ErrorCode, KeyChanged, KeyInfo, KeyList, ReceiptText},
};

use super::{Body, FakeLog, Script, server::Seen};

pub(super) async fn respond(request: Request<Incoming>, script: &Script, seen: &Seen) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = match script.hasty {
        true => Bytes::new(),
        false => body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
    };
    let request = Request::from_parts(head, ());
    let path = request.uri().path();
    if path == api::ATTESTATION {
        seen.attestations.fetch_add(1, Ordering::SeqCst);
        if script.busy {
            return refusal(ErrorCode::RateLimited);
        }
        let nonce = hex::decode(query(&request, "nonce")).unwrap();
        return whole((script.documents)(&nonce));
    }
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let mut log = script.log.lock().unwrap();
    if let Some(answer) = (script.answer)(&request, body, &mut log) {
        return answer;
    }
    match (request.method(), path) {
        (&Method::GET, api::CHECKPOINT) => json(&log.checkpoint()),
        (&Method::GET, api::CONSISTENCY) => {
            let (old, new) = (query(&request, "old").parse().unwrap(), query(&request, "new").parse().unwrap());
            let proof = consistency_proof(&log.leaves[..], old, new).unwrap_or_default();
            json(&ConsistencyReply { old, new, proof })
        }
        (&Method::GET, api::KEYS) => json(&KeyList { keys: vec![] }),
        (&Method::POST, api::KEYS) => {
            let sequence = log.append("key generated");
            json(&KeyChanged { key: some_key(), receipt: ReceiptText(log.receipt(sequence)) })
        }
        _ => refusal(ErrorCode::NoSuchRoute),
    }
}

pub(crate) fn refusal(code: ErrorCode) -> Response<Body> {
    let error =
        ApiError { code, message: "as the test wants".into(), retryable: code.retryable(), request_id: "r1".into() };
    let mut response = json(&error);
    *response.status_mut() = http::StatusCode::from_u16(code.status()).unwrap();
    response
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> Response<Body> {
    whole(serde_json::to_vec(value).unwrap())
}

fn whole(bytes: Vec<u8>) -> Response<Body> {
    Response::new(Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync())
}

/// A reply to content, in chunks; the last of them may be a failure.
pub(crate) fn content(
    log: &mut FakeLog,
    key: &str,
    context: &str,
    chunks: Vec<std::io::Result<&'static [u8]>>,
) -> Response<Body> {
    let sequence = log.append("key used");
    let body = StreamBody::new(futures_util::stream::iter(chunks).then(|chunk| async {
        // One after the other, as frames come: what came before a failure was sent before it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        chunk.map(|bytes| Frame::data(Bytes::from_static(bytes)))
    }));
    Response::builder()
        .header(api::KEY_HEADER, key)
        .header(api::CONTEXT_HEADER, STANDARD.encode(context))
        .header(api::RECEIPT_HEADER, ReceiptText(log.receipt(sequence)).to_string())
        .body(body.boxed_unsync())
        .unwrap()
}

pub(crate) fn some_key() -> KeyInfo {
    KeyInfo {
        decrypt_from: KeyVersion(1),
        id: "film-1".parse().unwrap(),
        state: KeyState::Active,
        active_version: None,
        policy: KeyRotationPolicy { max_age_secs: 60, max_uses: 10, require_attestation: false },
        rotation: RotationNeed::None,
        versions: vec![],
    }
}

fn query<'a>(request: &'a Request<()>, name: &str) -> &'a str {
    let pairs = request.uri().query().unwrap().split('&').map(|pair| pair.split_once('=').unwrap());
    pairs.into_iter().find(|(key, _)| *key == name).unwrap().1
}
