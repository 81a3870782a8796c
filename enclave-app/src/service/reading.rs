//! The log for clients: pages of durable events, and proofs of where they are. Nothing here is believed or vouched for: it
//! comes from the parent, and the client checks it against checkpoints.

mod reader;

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use transcode_confidential::{
    audit::{cose_receipt::CoseReceipt, tree::Node},
    ids::Sequence,
    protocol::{
        api::{CURSOR_HEADER, ErrorCode, FIRST_HEADER, InclusionReply, LOG_WAIT_LIMIT, LogCursor, SIZE_HEADER},
        host::{Reply, Request},
        policy::Operation,
    },
};

use super::{Caller, Failure, Service, evidence::OCTETS};
use reader::Reader;

type App = State<Arc<Service>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    event: u64,
    size: u64,
}

/// A path says nothing of any event but that it is there, so no grant is asked for.
pub(super) async fn inclusion(
    State(service): App,
    _caller: Caller,
    place: Result<Query<Place>, QueryRejection>,
) -> Result<Json<InclusionReply>, Failure> {
    let Query(Place { event, size }) = place.map_err(|_| Failure::malformed("give event and size"))?;
    if event >= size || size > service.custody.ledger.persisted().size {
        return Err(Failure::malformed("give event and size so that event < size <= the size of the log"));
    }
    Ok(Json(InclusionReply { event, size, proof: path(&service, event, size).await? }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    event: u64,
}

/// The log key signs the root that is ours; whether the parent's path leads there is for the client to find out.
pub(super) async fn receipt(
    State(service): App,
    _caller: Caller,
    event: Result<Query<Event>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Event { event }) = event.map_err(|_| Failure::malformed("give event"))?;
    let state = service.custody.ledger.persisted();
    if event >= state.size {
        return Err(Failure::malformed("there is no such event"));
    }
    let path = path(&service, event, state.size).await?;
    let (log_id, tree) = (service.custody.log_id(), (state.size, state.root));
    let receipt = CoseReceipt::sign(&service.log_key, log_id, tree, Sequence(event), path);
    Ok(([(CONTENT_TYPE, "application/cose; cose-type=\"cose-sign1\"")], receipt.to_bytes()).into_response())
}

async fn path(service: &Service, index: u64, size: u64) -> Result<Vec<Node>, Failure> {
    match service.link.call(Request::Inclusion { index, size }).await? {
        Reply::Proof(path) => Ok(path),
        _ => Err(Failure::new(ErrorCode::AuditUnavailable, "the parent gave no proof")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    from: u64,
    cursor: Option<String>,
    wait: Option<u64>,
}

pub(super) async fn page(
    State(service): App,
    Caller(principal): Caller,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Failure> {
    // The log is that of all keys.
    if !service.grants.allow_all(&principal, Operation::ReadAudit) {
        return Err(Failure::denied());
    }
    let shape = || Failure::malformed("give from, an event; cursor, as a page had it; wait, in seconds");
    let Query(Wanted { from, cursor, wait }) = wanted.map_err(|_| shape())?;
    let cursor: Option<LogCursor> = cursor.map(|cursor| cursor.parse().map_err(|_| shape())).transpose()?;
    let size = durable(&service, from, Duration::from_secs(wait.unwrap_or(0).min(LOG_WAIT_LIMIT))).await;
    let mut response = if from >= size {
        let first = HeaderValue::from(from);
        ([(CONTENT_TYPE, HeaderValue::from_static(OCTETS)), (FIRST_NAME, first)], Vec::new()).into_response()
    } else {
        // Whoever waits for this waits outside: the reads of others, and all that the log itself needs, go on.
        let turn = service.log_reads.acquire().await;
        let _turn = turn.map_err(|_| Failure::new(ErrorCode::NotReady, "the enclave is stopping"))?;
        let read = Reader::new(&service.link, size).page(Sequence(from), cursor).await?;
        let first = HeaderValue::from(read.first.0);
        let mut response =
            ([(CONTENT_TYPE, HeaderValue::from_static(OCTETS)), (FIRST_NAME, first)], read.records).into_response();
        if let Some(next) = read.next.and_then(|next| HeaderValue::from_str(&next.to_string()).ok()) {
            response.headers_mut().insert(CURSOR_HEADER, next);
        }
        response
    };
    response.headers_mut().insert(SIZE_HEADER, HeaderValue::from(size));
    Ok(response)
}

const FIRST_NAME: axum::http::HeaderName = axum::http::HeaderName::from_static(FIRST_HEADER);

/// Number of durable events, once there are more than `from` or the time is up.
async fn durable(service: &Service, from: u64, wait: Duration) -> u64 {
    let mut persisted = service.custody.ledger.watch_persisted();
    let _ = tokio::time::timeout(wait, persisted.wait_for(|state| state.size > from)).await;
    let state = *persisted.borrow();
    state.size
}
