//! Keeping the log: snapshots, legal holds, pruning. All of it takes the grant `admin`.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use transcode_confidential::{
    audit::{HoldChange, Receipt},
    ids::{Principal, Sequence},
    protocol::{
        api::{ErrorCode, HoldInfo, HoldList, HoldRequest, JSON_LIMIT, LogMaintained, PruneRequest, ReceiptText},
        policy::Operation,
    },
};

use super::{
    Caller, Failure, Service,
    evidence::bounded,
    keys::{json, marked},
    once::{self, Repeatable},
};
use crate::archive::{ArchiveError, AskedBy, Maintained};

type App = State<Arc<Service>>;

pub(super) async fn snapshot(
    State(service): App,
    Caller(principal): Caller,
    repeatable: Repeatable,
) -> Result<Kept, Failure> {
    administrator(&service, &principal)?;
    // Whatever the body holds, it asks for nothing.
    let tag = repeatable.tag(&principal, b"");
    let turn = once::enter(&service, tag).await?;
    match turn.repeated {
        Some(receipt) => Ok(Kept::repeated(receipt, None)),
        None => Ok(Kept::now(service.archive.snapshot(Some(AskedBy { principal: &principal, tag })).await?)),
    }
}

pub(super) async fn prune(
    State(service): App,
    Caller(principal): Caller,
    repeatable: Repeatable,
    body: Body,
) -> Result<Kept, Failure> {
    administrator(&service, &principal)?;
    let body = bounded(body, JSON_LIMIT).await?;
    let PruneRequest { up_to } = json(&body)?;
    let tag = repeatable.tag(&principal, &body);
    let turn = once::enter(&service, tag).await?;
    if let Some(receipt) = turn.repeated {
        let below = service.custody.ledger.with_fold(|fold, _| fold.kept_from());
        return Ok(Kept::repeated(receipt, Some(below)));
    }
    Ok(Kept::now(service.archive.prune(Some(AskedBy { principal: &principal, tag }), up_to).await?))
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
    repeatable: Repeatable,
    body: Body,
) -> Result<Kept, Failure> {
    change_hold(&service, &principal, repeatable, body, HoldChange::Placed).await
}

pub(super) async fn lift_hold(
    State(service): App,
    Caller(principal): Caller,
    repeatable: Repeatable,
    body: Body,
) -> Result<Kept, Failure> {
    change_hold(&service, &principal, repeatable, body, HoldChange::Lifted).await
}

async fn change_hold(
    service: &Service,
    principal: &Principal,
    repeatable: Repeatable,
    body: Body,
    change: HoldChange,
) -> Result<Kept, Failure> {
    administrator(service, principal)?;
    let body = bounded(body, JSON_LIMIT).await?;
    let HoldRequest { name } = json(&body)?;
    let tag = repeatable.tag(principal, &body);
    let turn = once::enter(service, tag).await?;
    match turn.repeated {
        Some(receipt) => Ok(Kept::repeated(receipt, None)),
        None => Ok(Kept::now(service.archive.hold(AskedBy { principal, tag }, &name, change).await?)),
    }
}

fn administrator(service: &Service, principal: &Principal) -> Result<(), Failure> {
    if service.grants.allow(principal, Operation::Admin, None) { Ok(()) } else { Err(Failure::denied()) }
}

/// What became of a request to keep the log.
pub(super) struct Kept {
    answer: LogMaintained,
    repeated: bool,
}

impl Kept {
    fn now(Maintained { sequence, below, receipt }: Maintained) -> Self {
        Self { answer: LogMaintained { sequence, below, receipt: ReceiptText(receipt) }, repeated: false }
    }

    /// It was done before; `below` is what is kept now, which later requests may have raised.
    fn repeated(receipt: Receipt, below: Option<Sequence>) -> Self {
        let sequence = receipt.sequence;
        Self { answer: LogMaintained { sequence, below, receipt: ReceiptText(receipt) }, repeated: true }
    }
}

impl IntoResponse for Kept {
    fn into_response(self) -> Response {
        marked(Json(self.answer), self.repeated)
    }
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
