//! Data keys for clients that work on their own cores: issued, and unwrapped.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use transcode_confidential::{
    audit::NAME_LIMIT,
    protocol::{
        api::{
            DATA_KEY_BATCH, DATA_KEYS_LIMIT, ErrorCode, IssueDataKeys, IssuedDataKeyInfo, IssuedDataKeys, ItemError,
            KeyText, ReceiptText, ReleasedKey, SealedText, SecretBuffer, UnwrapDataKeys, UnwrapItem, UnwrapOutcome,
            UnwrappedDataKeyInfo, UnwrappedDataKeys, WrappedText,
        },
        policy::Operation,
    },
    secret::KeyMaterial,
};

use super::{
    Caller, Failure, Service,
    caller::Who,
    evidence::bounded,
    keys::{authorize, key_id},
};
use crate::{
    callers::AttestedCaller,
    custody::{PendingUnwrap, Released},
};

type App = State<Arc<Service>>;

/// Room for one key in an answer: the keys and a receipt of usual length. What is longer costs a copy, no more.
const ANSWER_ITEM: usize = 2048;

pub(super) async fn issue(
    State(service): App,
    Caller(principal): Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    let id = key_id(&id)?;
    let permit = authorize(&service, &principal, Operation::IssueDataKey, &id)?;
    let request: IssueDataKeys = json(body).await?;
    check_name(request.content_id.as_deref())?;
    let contexts = request.contexts().map_err(|error| Failure::malformed(error.to_string()))?;
    let content_id = request.content_id.as_deref();
    let issued = service.custody.issue_data_keys(&permit, &contexts, content_id, &*service.entropy).await?;
    let data_keys = issued.into_iter().map(|Released { data_key, receipt, recipient }| {
        Ok(IssuedDataKeyInfo {
            key: released(data_key.data_key().material(), recipient.as_deref())?,
            wrapped: WrappedText(data_key.wrapped().clone()),
            receipt: ReceiptText(receipt),
        })
    });
    let answer = IssuedDataKeys { data_keys: data_keys.collect::<Result<_, Failure>>()? };
    secret(&answer, answer.data_keys.len())
}

pub(super) async fn unwrap(State(service): App, Caller(principal): Caller, body: Body) -> Result<Response, Failure> {
    let UnwrapDataKeys { content_id, items } = json(body).await?;
    check_name(content_id.as_deref())?;
    if !(1..=DATA_KEY_BATCH).contains(&items.len()) {
        return Err(Failure::malformed(format!("ask for 1 to {DATA_KEY_BATCH} data keys at a time")));
    }
    let (mut outcomes, mut pending) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    for item in &items {
        match begin(&service, &principal, item, content_id.as_deref()).await {
            Ok(begun) => {
                outcomes.push(None);
                pending.push(begun);
            }
            Err(failure) => outcomes.push(Some(failure)),
        }
    }
    let mut confirmed = service.custody.confirm_unwraps(pending).await.into_iter();
    let items = outcomes.into_iter().map(|failed| {
        let unwrapped = match failed {
            Some(failure) => Err(failure),
            None => match confirmed.next() {
                Some(Ok(Released { data_key, receipt, recipient })) => {
                    released(data_key.material(), recipient.as_deref())
                        .map(|key| UnwrappedDataKeyInfo { key, receipt: ReceiptText(receipt) })
                }
                Some(Err(error)) => Err(Failure::from(error)),
                None => Err(Failure::new(ErrorCode::Internal, "an item was lost")),
            },
        };
        match unwrapped {
            Ok(info) => UnwrapOutcome::DataKey(Box::new(info)),
            Err(failure) => {
                failure.record(&service, Some((*principal).clone()), "a data key was not unwrapped");
                UnwrapOutcome::Error(item_error(failure))
            }
        }
    });
    let answer = UnwrappedDataKeys { items: items.collect() };
    secret(&answer, answer.items.len())
}

async fn begin(
    service: &Service,
    principal: &Who,
    item: &UnwrapItem,
    content_id: Option<&str>,
) -> Result<PendingUnwrap, Failure> {
    let UnwrapItem { wrapped: WrappedText(wrapped), context } = item;
    let permit = authorize(service, principal, Operation::Decrypt, wrapped.key_id())?;
    Ok(service.custody.begin_unwrap(&permit, wrapped, context, content_id).await?)
}

fn item_error(failure: Failure) -> ItemError {
    let (code, message) = failure.into_parts();
    ItemError { code, message, retryable: code.retryable() }
}

/// An answer whose bytes are wiped once they are sent.
fn secret<T: Serialize>(answer: &T, items: usize) -> Result<Response, Failure> {
    let json = SecretBuffer::json(answer, items * ANSWER_ITEM)
        .map_err(|_| Failure::new(ErrorCode::Internal, "the answer cannot be written"))?;
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from(Bytes::from_owner(json))).into_response())
}

/// Where it is released: this goes into the answer and nowhere else. An attested caller gets it encrypted to the key in its
/// document, whatever the grant says, and never in another way.
fn released(material: &KeyMaterial, recipient: Option<&AttestedCaller>) -> Result<ReleasedKey, Failure> {
    match recipient {
        None => Ok(ReleasedKey::Plaintext(KeyText(KeyMaterial::copied_from(material.expose())))),
        Some(caller) => Ok(ReleasedKey::Sealed(SealedText(caller.seal(material.expose())?))),
    }
}

fn check_name(content_id: Option<&str>) -> Result<(), Failure> {
    match content_id {
        Some(name) if name.is_empty() || name.len() > NAME_LIMIT => {
            Err(Failure::malformed(format!("content_id: 1 to {NAME_LIMIT} bytes")))
        }
        _ => Ok(()),
    }
}

async fn json<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let bytes = bounded(body, DATA_KEYS_LIMIT).await?;
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(bytes).map_err(|error| Failure::malformed(format!("JSON: {error}")))
}
