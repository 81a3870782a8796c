//! Work that transcoders report. The newest reports are part of the log's state, so that one that comes again is answered as
//! before, also after a restart.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
};
use transcode_confidential::{
    audit::{AuditEventType, EventBody, EventDraft, NAME_LIMIT, Receipt, ReportOf, Reported},
    keys::{KeyError, KeyTable},
    protocol::{
        api::{ContentReported, ErrorCode, JSON_LIMIT, ReceiptText, ReportContent},
        policy::Operation,
    },
};

use super::{
    Caller, Failure, Service,
    evidence::bounded,
    keys::{authorize, json},
    once,
};
use crate::{grants::Permit, ledger::Entry};

pub(super) async fn report(
    State(service): State<Arc<Service>>,
    Caller(principal): Caller,
    Path(content_id): Path<String>,
    body: Body,
) -> Result<Json<ContentReported>, Failure> {
    if content_id.is_empty() || content_id.len() > NAME_LIMIT {
        return Err(Failure::malformed(format!("content id: 1 to {NAME_LIMIT} bytes")));
    }
    let wanted: ReportContent = json(&bounded(body, JSON_LIMIT).await?)?;
    let permit = authorize(&service, &principal, Operation::Report, &wanted.key)?;
    service.custody.ledger.with_keys(|keys, _| keys.key(permit.key()).map(|_| ()).ok_or(KeyError::Unknown))?;
    let reported = wanted.to_reported().map_err(|error| Failure::malformed(error.to_string()))?;
    let of = ReportOf {
        principal: principal.as_str(),
        content: &content_id,
        key: wanted.key.as_str(),
        version: wanted.version,
    };
    let tag = reported.tag(&of);
    let otherwise = || Failure::new(ErrorCode::Conflict, "this piece of the job was reported otherwise before");
    let turn = once::enter_by(&service, KeyTable::reported, &tag, otherwise).await?;
    let repeated = turn.repeated.is_some();
    let receipt = match turn.repeated {
        Some(receipt) => receipt,
        None => record(&service, &permit, &wanted, &content_id, reported).await?,
    };
    Ok(Json(ContentReported { receipt: ReceiptText(receipt), repeated }))
}

async fn record(
    service: &Service,
    permit: &Permit,
    wanted: &ReportContent,
    content_id: &str,
    reported: Reported,
) -> Result<Receipt, Failure> {
    let details = if reported.complete { "work reported" } else { "work reported as given up" };
    let placed = service.custody.ledger.decide(|keys, _| {
        permit.check()?;
        let key = keys.key(permit.key()).ok_or(KeyError::Unknown)?;
        if let Some(version) = wanted.version {
            key.version(version).ok_or(KeyError::NoSuchVersion(version))?;
        }
        let draft = EventDraft::new(AuditEventType::ContentProcessed, details)
            .key(permit.key(), wanted.version)
            .principal(permit.principal())
            .content(content_id)
            .body(EventBody::Reported(reported));
        Ok(Entry::from(draft))
    });
    let (_event, receipt) = placed.await?.persisted().await?;
    Ok(receipt)
}
