//! Several operations in one request, each with a result of its own.

use std::{collections::HashSet, sync::Arc};

use axum::{Extension, Json, body::Body, extract::State};
use futures_util::future::join_all;
use transcode_confidential::{
    audit::RequestTag,
    protocol::api::{BATCH_LIMIT, Batch, BatchOperation, BatchReply, BatchResult, JSON_LIMIT},
};

use super::{
    Caller, Failure, Service,
    caller::Who,
    evidence::bounded,
    failure::RequestId,
    keys::{self, Outcome},
    once::Repeatable,
};
use crate::custody::Change;

pub(super) async fn batch(
    State(service): State<Arc<Service>>,
    Caller(principal): Caller,
    Extension(request_id): Extension<RequestId>,
    repeatable: Repeatable,
    body: Body,
) -> Result<Json<BatchReply>, Failure> {
    let body = bounded(body, JSON_LIMIT).await?;
    let Batch { operations } = keys::json(&body)?;
    if operations.is_empty() || operations.len() > BATCH_LIMIT {
        return Err(Failure::malformed(format!("give 1 to {BATCH_LIMIT} operations")));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = operations.iter().map(BatchOperation::key).find(|id| !seen.insert(*id)) {
        return Err(Failure::malformed(format!("{twice}: one operation for a key")));
    }
    let tag = repeatable.tag(&principal, &body);
    // Each waits for its own event; what comes together becomes durable together.
    let results = join_all((0..).zip(&operations).map(async |(item, operation)| {
        let tag = tag.map(|tag| tag.item(item));
        match carry_out(&service, &principal, operation.clone(), tag).await {
            Ok(outcome) => BatchResult { status: outcome.status(), changed: Some(outcome.changed), error: None },
            Err(failure) => {
                let what = format!("request {}: an operation of a batch refused", request_id.0);
                failure.record(&service, Some((*principal).clone()), &what);
                BatchResult { status: failure.status(), changed: None, error: Some(failure.body(&request_id)) }
            }
        }
    }));
    Ok(Json(BatchReply { results: results.await }))
}

async fn carry_out(
    service: &Arc<Service>,
    principal: &Who,
    operation: BatchOperation,
    tag: Option<RequestTag>,
) -> Result<Outcome, Failure> {
    let (change, one) = match operation {
        BatchOperation::Generate(wanted) => return keys::generate(service, principal, wanted, tag).await,
        BatchOperation::Rotate(one) => {
            return keys::make_next(service, principal, &one.id, one.expected_version, tag).await;
        }
        BatchOperation::DestroyVersion(one) => {
            let change = (Change::DestroyVersion(one.version), one.expected_version);
            return keys::change(service, principal, &one.id, change, tag).await;
        }
        BatchOperation::DecryptFrom(one) => {
            let change = (Change::DecryptFrom(one.version), one.expected_version);
            return keys::change(service, principal, &one.id, change, tag).await;
        }
        BatchOperation::Revoke(one) => (Change::Revoke, one),
        BatchOperation::Suspend(one) => (Change::Suspend, one),
        BatchOperation::Resume(one) => (Change::Resume, one),
        BatchOperation::Destroy(one) => (Change::Destroy, one),
        _ => return Err(Failure::malformed("no such operation")),
    };
    keys::change(service, principal, &one.id, (change, one.expected_version), tag).await
}
