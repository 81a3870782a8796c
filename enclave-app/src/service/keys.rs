//! Making, listing, rotating, revoking.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
};
use serde::de::DeserializeOwned;
use transcode_confidential::{
    audit::CreationReason,
    ids::{KeyId, Principal},
    keys::KeyRotationPolicy,
    protocol::{
        api::{CreateKey, JSON_LIMIT, KeyChanged, KeyInfo, KeyList, ReceiptText, RotateKey},
        policy::Operation,
    },
};

use super::{Caller, Failure, Service, evidence::bounded};
use crate::{custody::Changed, grants::Permit};

type App = State<Arc<Service>>;

pub(super) async fn create(
    State(service): App,
    Caller(principal): Caller,
    body: Body,
) -> Result<(StatusCode, Json<KeyChanged>), Failure> {
    let wanted: CreateKey = json(body).await?;
    let permit = authorize(&service, &principal, Operation::Generate, &wanted.id)?;
    let defaults = service.custody.defaults;
    let policy = KeyRotationPolicy {
        max_age_secs: wanted.max_age_secs.unwrap_or(defaults.max_age_secs),
        max_uses: wanted.max_uses.unwrap_or(defaults.max_uses),
        require_attestation: wanted.require_attestation.unwrap_or(defaults.require_attestation),
    };
    let made = service.custody.generate(&permit, policy).await?;
    Ok((StatusCode::CREATED, changed(made)))
}

pub(super) async fn list(State(service): App, Caller(principal): Caller) -> Json<KeyList> {
    let keys = service.custody.list(|id| service.grants.knows(&principal, id));
    Json(KeyList { keys })
}

pub(super) async fn show(
    State(service): App,
    Caller(principal): Caller,
    Path(id): Path<String>,
) -> Result<Json<KeyInfo>, Failure> {
    let id = key_id(&id)?;
    if !service.grants.knows(&principal, &id) {
        return Err(Failure::denied());
    }
    service.custody.info(&id).map(Json).ok_or_else(Failure::denied)
}

pub(super) async fn rotate(
    State(service): App,
    Caller(principal): Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<KeyChanged>, Failure> {
    let id = key_id(&id)?;
    let permit = authorize(&service, &principal, Operation::Rotate, &id)?;
    let RotateKey { expected_version } = json(body).await?;
    let rotated = service.custody.rotate(Some(&permit), &id, expected_version, CreationReason::Manual).await?;
    Ok(changed(rotated))
}

pub(super) async fn revoke(
    State(service): App,
    Caller(principal): Caller,
    Path(id): Path<String>,
) -> Result<Json<KeyChanged>, Failure> {
    let id = key_id(&id)?;
    let permit = authorize(&service, &principal, Operation::Revoke, &id)?;
    Ok(changed(service.custody.revoke(&permit).await?))
}

/// Lets through what is granted; refuses everything else in the same words.
pub(super) fn authorize(
    service: &Service,
    principal: &Principal,
    operation: Operation,
    key: &KeyId,
) -> Result<Permit, Failure> {
    service.grants.permit(principal, operation, key).ok_or_else(Failure::denied)
}

pub(super) fn key_id(text: &str) -> Result<KeyId, Failure> {
    text.parse().map_err(|error| Failure::malformed(format!("not a key id: {error}")))
}

fn changed(changed: Changed) -> Json<KeyChanged> {
    Json(KeyChanged { key: changed.key, receipt: ReceiptText(changed.receipt) })
}

/// A JSON body; none at all stands for the empty object.
async fn json<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let bytes = bounded(body, JSON_LIMIT).await?;
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(bytes).map_err(|error| Failure::malformed(format!("JSON: {error}")))
}
