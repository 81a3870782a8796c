//! Keeping the log: snapshots, legal holds, pruning. All of it takes the grant `admin`.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State};
use transcode_confidential::{
    audit::HoldChange,
    ids::Principal,
    protocol::{
        api::{ErrorCode, HoldInfo, HoldList, HoldRequest, JSON_LIMIT, LogMaintained, PruneRequest, ReceiptText},
        policy::Operation,
    },
};

use super::{Caller, Failure, Service, evidence::bounded, keys::json};
use crate::archive::{ArchiveError, Maintained};

type App = State<Arc<Service>>;

pub(super) async fn snapshot(State(service): App, Caller(principal): Caller) -> Result<Json<LogMaintained>, Failure> {
    administrator(&service, &principal)?;
    Ok(maintained(service.archive.snapshot().await?))
}

pub(super) async fn prune(
    State(service): App,
    Caller(principal): Caller,
    body: Body,
) -> Result<Json<LogMaintained>, Failure> {
    administrator(&service, &principal)?;
    let PruneRequest { up_to } = json(&bounded(body, JSON_LIMIT).await?)?;
    Ok(maintained(service.archive.prune(Some(&*principal), up_to).await?))
}

pub(super) async fn holds(State(service): App, Caller(principal): Caller) -> Result<Json<HoldList>, Failure> {
    administrator(&service, &principal)?;
    let holds = service.custody.ledger.with_fold(|fold, _| {
        let info = |(name, hold): (&str, &transcode_confidential::fold::Hold)| HoldInfo {
            name: name.to_owned(),
            since: hold.since,
            placed_at: hold.placed_at,
            principal: hold.principal.clone(),
        };
        fold.holds().map(info).collect()
    });
    Ok(Json(HoldList { holds }))
}

pub(super) async fn place_hold(
    State(service): App,
    Caller(principal): Caller,
    body: Body,
) -> Result<Json<LogMaintained>, Failure> {
    change_hold(&service, &principal, body, HoldChange::Placed).await
}

pub(super) async fn lift_hold(
    State(service): App,
    Caller(principal): Caller,
    body: Body,
) -> Result<Json<LogMaintained>, Failure> {
    change_hold(&service, &principal, body, HoldChange::Lifted).await
}

async fn change_hold(
    service: &Service,
    principal: &Principal,
    body: Body,
    change: HoldChange,
) -> Result<Json<LogMaintained>, Failure> {
    administrator(service, principal)?;
    let HoldRequest { name } = json(&bounded(body, JSON_LIMIT).await?)?;
    Ok(maintained(service.archive.hold(principal, &name, change).await?))
}

fn administrator(service: &Service, principal: &Principal) -> Result<(), Failure> {
    if service.grants.allow(principal, Operation::Admin, None) { Ok(()) } else { Err(Failure::denied()) }
}

fn maintained(done: Maintained) -> Json<LogMaintained> {
    let Maintained { sequence, below, receipt } = done;
    Json(LogMaintained { sequence, below, receipt: ReceiptText(receipt) })
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        let code = match error {
            ArchiveError::Ledger(error) => return error.into(),
            ArchiveError::NotUnwrapped { .. } => ErrorCode::KmsUnavailable,
            ArchiveError::HoldName => ErrorCode::Malformed,
            _ => ErrorCode::Conflict,
        };
        Self::new(code, error.to_string())
    }
}
