//! Making, listing, rotating and changing keys.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use transcode_confidential::{
    audit::{CreationReason, Receipt, RequestTag},
    ids::{KeyId, KeyVersion},
    keys::KeyRotationPolicy,
    protocol::{
        api::{
            ChangeKey, CreateKey, DecryptFrom, JSON_LIMIT, KeyChanged, KeyInfo, KeyList, REPLAYED_HEADER, ReceiptText,
            RotateKey,
        },
        policy::Operation,
    },
};

use super::{
    Caller, Failure, Service,
    caller::Who,
    evidence::bounded,
    once::{self, Repeatable},
};
use crate::{
    custody::{Asked, Change, Changed},
    grants::Permit,
};

type App = State<Arc<Service>>;

/// What became of a request that changes a key.
pub(super) struct Outcome {
    status: StatusCode,
    pub(super) changed: KeyChanged,
    repeated: bool,
}

pub(super) async fn create(
    State(service): App,
    Caller(principal): Caller,
    repeatable: Repeatable,
    body: Body,
) -> Result<Outcome, Failure> {
    let (wanted, tag) = asked(&principal, &repeatable, body).await?;
    generate(&service, &principal, wanted, tag).await
}

pub(super) async fn generate(
    service: &Arc<Service>,
    principal: &Who,
    wanted: CreateKey,
    tag: Option<RequestTag>,
) -> Result<Outcome, Failure> {
    let permit = authorize(service, principal, Operation::Generate, &wanted.id)?;
    let turn = once::enter(service, tag).await?;
    if let Some(receipt) = turn.repeated {
        return Outcome::repeated(service, &permit, receipt, StatusCode::CREATED);
    }
    let defaults = service.custody.defaults;
    let policy = KeyRotationPolicy {
        max_age_secs: wanted.max_age_secs.unwrap_or(defaults.max_age_secs),
        max_uses: wanted.max_uses.unwrap_or(defaults.max_uses),
        require_attestation: wanted.require_attestation.unwrap_or(defaults.require_attestation),
    };
    let made = service.custody.generate(&Asked { permit: &permit, expected: None, tag }, policy).await?;
    Ok(Outcome::new(made, StatusCode::CREATED))
}

pub(super) async fn list(State(service): App, Caller(principal): Caller) -> Json<KeyList> {
    let keys = service.custody.list(|id| service.grants.knows_caller(&principal, principal.attested().as_deref(), id));
    Json(KeyList { keys })
}

pub(super) async fn show(
    State(service): App,
    Caller(principal): Caller,
    Path(id): Path<String>,
) -> Result<Json<KeyInfo>, Failure> {
    let id = key_id(&id)?;
    if !service.grants.knows_caller(&principal, principal.attested().as_deref(), &id) {
        return Err(Failure::denied());
    }
    service.custody.info(&id).map(Json).ok_or_else(Failure::denied)
}

pub(super) async fn rotate(
    State(service): App,
    Caller(principal): Caller,
    Path(id): Path<String>,
    repeatable: Repeatable,
    body: Body,
) -> Result<Outcome, Failure> {
    let id = key_id(&id)?;
    // Whoever may not do it learns nothing of what is wrong with the request.
    authorize(&service, &principal, Operation::Rotate, &id)?;
    let (RotateKey { expected_version }, tag) = asked(&principal, &repeatable, body).await?;
    make_next(&service, &principal, &id, expected_version, tag).await
}

pub(super) async fn make_next(
    service: &Arc<Service>,
    principal: &Who,
    id: &KeyId,
    expected: Option<KeyVersion>,
    tag: Option<RequestTag>,
) -> Result<Outcome, Failure> {
    let permit = authorize(service, principal, Operation::Rotate, id)?;
    let turn = once::enter(service, tag).await?;
    if let Some(receipt) = turn.repeated {
        return Outcome::repeated(service, &permit, receipt, StatusCode::OK);
    }
    let asked = Asked { permit: &permit, expected, tag };
    let rotated = service.custody.rotate(Some(&asked), id, CreationReason::Manual).await?;
    Ok(Outcome::new(rotated, StatusCode::OK))
}

/// The routes that change a key as a whole differ in [`Change`] only.
pub(super) async fn change_whole(
    change: Change,
    State(service): App,
    Caller(principal): Caller,
    Path(id): Path<String>,
    repeatable: Repeatable,
    body: Body,
) -> Result<Outcome, Failure> {
    let id = key_id(&id)?;
    authorize(&service, &principal, needed(change), &id)?;
    let (ChangeKey { expected_version }, tag) = asked(&principal, &repeatable, body).await?;
    self::change(&service, &principal, &id, (change, expected_version), tag).await
}

pub(super) async fn destroy_version(
    State(service): App,
    Caller(principal): Caller,
    Path((id, version)): Path<(String, String)>,
    repeatable: Repeatable,
    body: Body,
) -> Result<Outcome, Failure> {
    let id = key_id(&id)?;
    authorize(&service, &principal, Operation::Destroy, &id)?;
    let version = version.parse().map_err(|_| Failure::malformed("not the number of a version"))?;
    let (ChangeKey { expected_version }, tag) = asked(&principal, &repeatable, body).await?;
    let change = Change::DestroyVersion(KeyVersion(version));
    self::change(&service, &principal, &id, (change, expected_version), tag).await
}

pub(super) async fn decrypt_from(
    State(service): App,
    Caller(principal): Caller,
    Path(id): Path<String>,
    repeatable: Repeatable,
    body: Body,
) -> Result<Outcome, Failure> {
    let id = key_id(&id)?;
    authorize(&service, &principal, Operation::Suspend, &id)?;
    let (DecryptFrom { version, expected_version }, tag) = asked(&principal, &repeatable, body).await?;
    let change = Change::DecryptFrom(version);
    self::change(&service, &principal, &id, (change, expected_version), tag).await
}

pub(super) async fn change(
    service: &Arc<Service>,
    principal: &Who,
    id: &KeyId,
    (change, expected): (Change, Option<KeyVersion>),
    tag: Option<RequestTag>,
) -> Result<Outcome, Failure> {
    let permit = authorize(service, principal, needed(change), id)?;
    let turn = once::enter(service, tag).await?;
    if let Some(receipt) = turn.repeated {
        return Outcome::repeated(service, &permit, receipt, StatusCode::OK);
    }
    let changed = service.custody.change(&Asked { permit: &permit, expected, tag }, change).await?;
    Ok(Outcome::new(changed, StatusCode::OK))
}

/// The grant that a change needs. What can be taken back needs the same as taking it back.
const fn needed(change: Change) -> Operation {
    match change {
        Change::Revoke => Operation::Revoke,
        Change::Suspend | Change::Resume | Change::DecryptFrom(_) => Operation::Suspend,
        Change::Destroy | Change::DestroyVersion(_) => Operation::Destroy,
    }
}

/// Lets through what is granted; refuses everything else in the same words.
pub(super) fn authorize(
    service: &Service,
    principal: &Who,
    operation: Operation,
    key: &KeyId,
) -> Result<Permit, Failure> {
    service.grants.permit_caller(principal, principal.attested(), operation, key).ok_or_else(Failure::denied)
}

pub(super) fn key_id(text: &str) -> Result<KeyId, Failure> {
    text.parse().map_err(|error| Failure::malformed(format!("not a key id: {error}")))
}

/// What a request asks for, and its tag where it may be sent again.
async fn asked<T: DeserializeOwned>(
    principal: &Who,
    repeatable: &Repeatable,
    body: Body,
) -> Result<(T, Option<RequestTag>), Failure> {
    let body = bounded(body, JSON_LIMIT).await?;
    Ok((json(&body)?, repeatable.tag(principal, &body)))
}

/// A JSON body; none at all stands for the empty object.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Failure::malformed(format!("JSON: {error}")))
}

impl Outcome {
    pub(super) fn new(changed: Changed, status: StatusCode) -> Self {
        let changed = KeyChanged { key: changed.key, receipt: ReceiptText(changed.receipt) };
        Self { status, changed, repeated: false }
    }

    /// The receipt of what was done, with the key as it is now.
    fn repeated(service: &Service, permit: &Permit, receipt: Receipt, status: StatusCode) -> Result<Self, Failure> {
        let key = service.custody.info(permit.key()).ok_or_else(Failure::denied)?;
        Ok(Self { status, changed: KeyChanged { key, receipt: ReceiptText(receipt) }, repeated: true })
    }

    pub(super) const fn status(&self) -> u16 {
        self.status.as_u16()
    }
}

impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        marked((self.status, Json(self.changed)), self.repeated)
    }
}

/// An answer that tells the caller where nothing was done anew.
pub(super) fn marked(answer: impl IntoResponse, repeated: bool) -> Response {
    let mut response = answer.into_response();
    if repeated {
        response.headers_mut().insert(HeaderName::from_static(REPLAYED_HEADER), HeaderValue::from_static("true"));
    }
    response
}
