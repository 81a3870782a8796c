//! Work that transcoders report.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;
use transcode_confidential::{
    audit::{AuditEventType, EventBody, EventDraft, NAME_LIMIT, Receipt, Reported},
    ids::{Digest, Principal},
    keys::KeyError,
    protocol::{
        api::{ContentReported, ErrorCode, JSON_LIMIT, ReceiptText, ReportContent},
        policy::Operation,
    },
};

use super::{Caller, Failure, Service, evidence::bounded, keys::authorize};
use crate::{grants::Permit, ledger::Entry};

/// Reports that are remembered, so that one that comes again is answered as before. The oldest is forgotten first.
const REMEMBERED: usize = 4096;

/// The newest reports of this boot, by (principal, content, job, number). A report that was forgotten, or that was made
/// before the enclave was started anew, makes a second event of the same name when it comes again.
#[derive(Default)]
pub struct Reports(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    by_name: HashMap<Digest, Arc<Slot>>,
    in_order: VecDeque<Digest>,
}

struct Slot {
    /// What was reported under the name.
    content: Digest,
    receipt: OnceCell<Receipt>,
}

impl Reports {
    fn slot(&self, name: Digest, content: Digest) -> Arc<Slot> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = memory.by_name.get(&name) {
            return Arc::clone(slot);
        }
        while memory.in_order.len() >= REMEMBERED {
            if let Some(oldest) = memory.in_order.pop_front() {
                memory.by_name.remove(&oldest);
            }
        }
        let slot = Arc::new(Slot { content, receipt: OnceCell::new() });
        memory.by_name.insert(name, Arc::clone(&slot));
        memory.in_order.push_back(name);
        slot
    }

    /// Nothing was recorded under a name after all.
    fn forget(&self, name: Digest, slot: &Arc<Slot>) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = memory.by_name.get(&name).is_some_and(|found| Arc::ptr_eq(found, slot));
        if same && !slot.receipt.initialized() {
            memory.by_name.remove(&name);
            memory.in_order.retain(|other| *other != name);
        }
    }
}

pub(super) async fn report(
    State(service): State<Arc<Service>>,
    Caller(principal): Caller,
    Path(content_id): Path<String>,
    body: Body,
) -> Result<Json<ContentReported>, Failure> {
    if content_id.is_empty() || content_id.len() > NAME_LIMIT {
        return Err(Failure::malformed(format!("content id: 1 to {NAME_LIMIT} bytes")));
    }
    let bytes = bounded(body, JSON_LIMIT).await?;
    let wanted: ReportContent =
        serde_json::from_slice(&bytes).map_err(|error| Failure::malformed(format!("JSON: {error}")))?;
    let permit = authorize(&service, &principal, Operation::Report, &wanted.key)?;
    service.custody.ledger.with_keys(|keys, _| keys.key(permit.key()).map(|_| ()).ok_or(KeyError::Unknown))?;
    let reported = wanted.to_reported().map_err(|error| Failure::malformed(error.to_string()))?;
    let (name, content) = digests(&principal, &content_id, &wanted);
    let slot = service.reports.slot(name, content);
    if slot.content != content {
        return Err(Failure::new(ErrorCode::Conflict, "this piece of the job was reported otherwise before"));
    }
    let mut repeated = true;
    let recorded = slot.receipt.get_or_try_init(async || {
        repeated = false;
        record(&service, &permit, &wanted, &content_id, reported).await
    });
    match recorded.await.cloned() {
        Ok(receipt) => Ok(Json(ContentReported { receipt: ReceiptText(receipt), repeated })),
        Err(failure) => {
            service.reports.forget(name, &slot);
            Err(failure)
        }
    }
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

/// The name of a report, and what it says.
fn digests(principal: &Principal, content_id: &str, wanted: &ReportContent) -> (Digest, Digest) {
    let field = |hash: Sha256, field: &[u8]| hash.chain_update((field.len() as u64).to_be_bytes()).chain_update(field);
    let names = [principal.as_str(), content_id, wanted.job.as_str()];
    let name = names.iter().fold(Sha256::new(), |hash, name| field(hash, name.as_bytes()));
    let name = name.chain_update(wanted.sequence.to_be_bytes());
    let said = serde_json::to_vec(wanted).unwrap_or_default();
    (Digest::new(name.finalize().into()), Digest::of(&said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_reports_are_remembered_and_a_failed_one_is_not() {
        let reports = Reports::default();
        let name = |number: usize| Digest::of(&number.to_be_bytes());
        let first = reports.slot(name(0), name(0));
        assert!(Arc::ptr_eq(&first, &reports.slot(name(0), name(1))));
        reports.forget(name(0), &first);
        assert!(!Arc::ptr_eq(&first, &reports.slot(name(0), name(0))));
        for number in 0..2 * REMEMBERED {
            reports.slot(name(number), name(number));
        }
        let memory = reports.0.lock().unwrap();
        assert_eq!((memory.by_name.len(), memory.in_order.len()), (REMEMBERED, REMEMBERED));
        assert!(!memory.by_name.contains_key(&name(0)));
    }
}
