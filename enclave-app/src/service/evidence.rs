//! What proves things: attestation, checkpoints, consistency, status. And the policy, which proves itself.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::{Body, Bytes, to_bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use transcode_confidential::{
    attestation::Nonce,
    audit::checkpoint::Checkpoint,
    keys::{KeyState, RotationNeed},
    protocol::{
        api::{CheckpointReply, ConsistencyReply, ErrorCode, NONCE_PATH_HEADER, ReceiptText, Restored, Status},
        host::{Reply, Request},
        policy::{DOCUMENT_LIMIT, Operation, SignedPolicy},
    },
    time::Clock,
};

use super::{
    Caller, Failure, Service,
    caller::Peer,
    keys::marked,
    memory,
    once::{self, Repeatable},
};
use crate::{grants::AdoptError, nsm::NsmError};

type App = State<Arc<Service>>;

/// Media type of everything that is bytes.
pub(super) const OCTETS: &str = "application/octet-stream";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Challenge {
    nonce: String,
    /// Whether a document will do that answers the nonces of others too.
    #[serde(default)]
    shared: bool,
}

pub(super) async fn attestation(
    State(service): App,
    Extension(peer): Extension<Peer>,
    challenge: Result<Query<Challenge>, QueryRejection>,
) -> Result<Response, Failure> {
    let shape = || Failure::malformed("give nonce as 64 hexadecimal digits");
    let Query(challenge) = challenge.map_err(|_| shape())?;
    let mut nonce = [0; Nonce::LEN];
    hex::decode_to_slice(&challenge.nonce, &mut nonce).map_err(|_| shape())?;
    let busy = || Failure::new(ErrorCode::RateLimited, "too many attestation documents are asked for");
    let failed = |error: NsmError| match error {
        NsmError::Busy => busy(),
        _ => Failure::new(ErrorCode::AttestationFailed, "the NSM gave no document"),
    };
    if challenge.shared {
        let (document, path) = service.shared_documents.document(nonce).await.map_err(failed)?;
        let headers = [(CONTENT_TYPE.as_str(), OCTETS.to_owned()), (NONCE_PATH_HEADER, path.to_string())];
        return Ok((headers, document.to_vec()).into_response());
    }
    let known = peer.principal().is_some();
    let rate = if known { &service.known_attestation_rate } else { &service.attestation_rate };
    if !rate.allow() {
        return Err(busy());
    }
    let document = service.custody.attestor.channel_document(&service.channel.spki, &nonce).await;
    Ok(([(CONTENT_TYPE, OCTETS)], document.map_err(failed)?).into_response())
}

pub(super) async fn checkpoint(State(service): App, _caller: Caller) -> Json<CheckpointReply> {
    let (log_id, state) = (service.custody.log_id(), service.custody.ledger.persisted());
    let restored = service.custody.ledger.with_fold(|fold, _| {
        let newest = fold.restorations().rev().find(|restored| restored.sequence.0 < state.size);
        newest.map(|newest| Restored {
            sequence: newest.sequence,
            epoch: newest.epoch,
            size: newest.size,
            root: newest.root,
            document: newest.document,
        })
    });
    let note = Checkpoint::of(log_id, &state).sign(&service.log_key, service.custody.epoch, &service.epoch_key);
    Json(CheckpointReply {
        log_id,
        state,
        checkpoint: note.to_string(),
        log_key: service.log_key.public_key(),
        epoch_key: service.epoch_key.public_key(),
        restored,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sizes {
    old: u64,
    new: u64,
}

pub(super) async fn consistency(
    State(service): App,
    _caller: Caller,
    sizes: Result<Query<Sizes>, QueryRejection>,
) -> Result<Json<ConsistencyReply>, Failure> {
    let Query(Sizes { old, new }) = sizes.map_err(|_| Failure::malformed("give old and new, two tree sizes"))?;
    if old > new || new > service.custody.ledger.persisted().size {
        return Err(Failure::malformed("give old and new so that old <= new <= the size of the log"));
    }
    // The parent computes it, and may lie: the proof verifies itself, at the client.
    match service.link.call(Request::Consistency { old, new }).await? {
        Reply::Proof(proof) => Ok(Json(ConsistencyReply { old, new, proof })),
        _ => Err(Failure::new(ErrorCode::AuditUnavailable, "the parent gave no proof")),
    }
}

pub(super) async fn status(State(service): App, Caller(principal): Caller) -> Result<Json<Status>, Failure> {
    if !service.grants.allow(&principal, Operation::Admin, None) {
        return Err(Failure::denied());
    }
    let custody = &service.custody;
    let (active, due) = custody.ledger.with_keys(|keys, now| {
        let active = keys.iter().filter(|(_, key)| key.state == KeyState::Active).count();
        (active as u64, keys.needing(RotationNeed::Due, now).count() as u64)
    });
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        enclave_id: service.enclave_id.clone(),
        log_id: custody.log_id(),
        persisted: custody.ledger.persisted(),
        placed_size: custody.ledger.placed_size(),
        policy_version: service.grants.version(),
        active_keys: active,
        rotations_due: due,
        time: custody.clock.now(),
        booted_at: service.booted_at,
        kms: custody.kms_health.report(custody.kms.key()),
    }))
}

#[derive(Serialize)]
struct Adopted {
    version: u64,
    receipt: ReceiptText,
}

pub(super) async fn policy(
    State(service): App,
    Caller(principal): Caller,
    repeatable: Repeatable,
    body: Body,
) -> Result<Response, Failure> {
    let document = bounded(body, DOCUMENT_LIMIT).await?;
    let tag = repeatable.tag(&principal, &document);
    let turn = once::enter(&service, tag).await?;
    if let Some(receipt) = turn.repeated {
        // The same document as the one that was verified then.
        let version = SignedPolicy::claimed_version(&document).map_err(AdoptError::from)?;
        return Ok(marked(Json(Adopted { version, receipt: ReceiptText(receipt) }), true));
    }
    let (version, receipt) = service.grants.adopt(&service.custody.ledger, &document, tag).await?;
    Ok(Json(Adopted { version, receipt: ReceiptText(receipt) }).into_response())
}

/// A whole body of at most `limit` bytes.
pub(super) async fn bounded(body: Body, limit: usize) -> Result<Bytes, Failure> {
    to_bytes(body, limit).await.map_err(|error| memory::refusal(&error, limit))
}
