//! Callers that are enclaves themselves answer a challenge.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State};
use transcode_confidential::{
    attestation::{MAX_SIZE, Purpose},
    audit::{AuditEventType, EventBody, EventDraft},
    entropy::Entropy as _,
    protocol::api::{CallerAttested, CallerChallenge, ErrorCode, ReceiptText},
    time::Clock as _,
};

use super::{Caller, Failure, Service, evidence::bounded};
use crate::callers::CallerRefusal;

pub(super) async fn challenge(
    State(service): State<Arc<Service>>,
    Caller(principal): Caller,
) -> Result<Json<CallerChallenge>, Failure> {
    let mut random = [0; 32];
    let none = |_| Failure::new(ErrorCode::NotReady, "there is no randomness now");
    service.entropy.fill(&mut random).map_err(none)?;
    Ok(Json(CallerChallenge { challenge: principal.session().challenge(random) }))
}

pub(super) async fn attest(
    State(service): State<Arc<Service>>,
    Caller(principal): Caller,
    body: Body,
) -> Result<Json<CallerAttested>, Failure> {
    let document = bounded(body, MAX_SIZE).await?;
    if !service.caller_rate.allow() {
        return Err(Failure::new(ErrorCode::RateLimited, "too many callers attest themselves at the same time"));
    }
    let custody = &service.custody;
    let verified =
        principal.session().verify(&document, &service.attestation_root, custody.log_id(), custody.clock.now());
    let verified = verified.and_then(|caller| {
        let expected = service.grants.expects_caller(&principal, caller.pcrs());
        if expected { Ok(caller) } else { Err(CallerRefusal::UnexpectedImage) }
    });
    let caller = verified.map_err(|refusal| Failure::new(ErrorCode::CallerRefused, refusal.to_string()))?;
    let digest = caller.document();
    let draft = EventDraft::new(AuditEventType::AttestationVerified, "a caller attested itself")
        .principal(&*principal)
        .body(EventBody::Attestation { purpose: Purpose::Caller, document: Some(digest), reason: None });
    let (_event, receipt) = custody.ledger.record(draft.into()).await?.persisted().await?;
    principal.session().accept(caller);
    Ok(Json(CallerAttested { document: digest, receipt: ReceiptText(receipt) }))
}
