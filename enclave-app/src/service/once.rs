//! Requests that may be sent again: an `Idempotency-Key` names a request for a day, across restarts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{extract::FromRequestParts, http::request::Parts};
use tokio::{sync::OwnedMutexGuard, time::timeout};
use transcode_confidential::{
    audit::{Receipt, RequestTag, Seal, tree::verify_inclusion},
    ids::{Digest, Principal},
    keys::{Answered, AnsweredRequests, KeyTable},
    protocol::{
        api::{ErrorCode, IDEMPOTENCY_HEADER, IDEMPOTENCY_KEY_LIMIT},
        host::{Reply, Request},
    },
};

use super::{Failure, Service};

/// How long a request waits for the same one that is being answered.
const PATIENCE: Duration = Duration::from_secs(30);

/// What may make a request repeatable: its idempotency key, and what it asks for.
#[derive(Debug, Clone)]
pub(super) struct Repeatable {
    key: Option<String>,
    method: String,
    path: String,
}

impl Repeatable {
    /// The tag of this request, where it came with a key.
    pub(super) fn tag(&self, principal: &Principal, body: &[u8]) -> Option<RequestTag> {
        let key = self.key.as_deref()?;
        Some(RequestTag::new(principal, key, (&self.method, &self.path, body)))
    }
}

impl<S: Sync> FromRequestParts<S> for Repeatable {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let wrong = || {
            let limit = IDEMPOTENCY_KEY_LIMIT;
            Failure::malformed(format!("{IDEMPOTENCY_HEADER}: one of 1 to {limit} visible ASCII characters"))
        };
        let mut given = parts.headers.get_all(IDEMPOTENCY_HEADER).iter();
        let key = match (given.next(), given.next()) {
            (None, _) => None,
            (Some(value), None) => {
                let visible = |byte: &u8| byte.is_ascii_graphic();
                let fits = (1..=IDEMPOTENCY_KEY_LIMIT).contains(&value.len()) && value.as_bytes().iter().all(visible);
                Some(value.to_str().ok().filter(|_| fits).ok_or_else(wrong)?.to_owned())
            }
            (Some(_), Some(_)) => return Err(wrong()),
        };
        Ok(Self { key, method: parts.method.to_string(), path: parts.uri.path().to_owned() })
    }
}

/// Requests with an idempotency key that are being answered: of equal ones, one at a time.
#[derive(Default)]
pub struct Turns(Arc<Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>>);

/// The turn of a request: it is new, or it was answered before.
pub(super) struct Turn {
    /// The receipt of what the same request did before.
    pub(super) repeated: Option<Receipt>,
    _ours: Option<Ours>,
}

struct Ours {
    turns: Arc<Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>>,
    key: Digest,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    async fn take(&self, key: Digest) -> Option<Ours> {
        let turn = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        let mut ours = Ours { turns: Arc::clone(&self.0), key, guard: None };
        ours.guard = Some(timeout(PATIENCE, turn.lock_owned()).await.ok()?);
        Some(ours)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.guard = None;
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.get(&self.key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.key);
        }
    }
}

/// Waits for the turn of a request. Hold the turn until the request is answered.
pub(super) async fn enter(service: &Service, tag: Option<RequestTag>) -> Result<Turn, Failure> {
    let Some(tag) = tag else { return Ok(Turn { repeated: None, _ours: None }) };
    enter_by(service, KeyTable::answered, &tag, || {
        Failure::new(ErrorCode::IdempotencyKeyReused, "this idempotency key came with another request before")
    })
    .await
}

/// As [`enter`], for requests that are remembered in `table`; `other` says that another one came under the same name.
pub(super) async fn enter_by(
    service: &Service,
    table: fn(&KeyTable) -> &AnsweredRequests,
    tag: &RequestTag,
    other: impl FnOnce() -> Failure,
) -> Result<Turn, Failure> {
    let ours = service.turns.take(tag.key).await;
    let ours = ours.ok_or_else(|| Failure::new(ErrorCode::Conflict, "the same request is being answered right now"))?;
    let answered = service.custody.ledger.with_keys(|keys, now| table(keys).find(tag, now).cloned());
    let repeated = match answered {
        None => None,
        Some(answered) if answered.tag.request == tag.request => Some(receipt_of(service, &answered).await?),
        Some(_) => return Err(other()),
    };
    Ok(Turn { repeated, _ours: Some(ours) })
}

/// A receipt of an event that may be of an earlier epoch: under the log as it is now. The path comes from the parent, and is
/// believed only where it leads from the event that we know to the root that we know.
async fn receipt_of(service: &Service, answered: &Answered) -> Result<Receipt, Failure> {
    let unavailable =
        || Failure::new(ErrorCode::AuditUnavailable, "the record of this request is not known to be durable");
    let mut persisted = service.custody.ledger.watch_persisted();
    let durable = persisted.wait_for(|state| state.size > answered.sequence.0);
    let state = match timeout(service.audit_wait, durable).await {
        Ok(Ok(state)) => *state,
        _ => return Err(unavailable()),
    };
    let request = Request::Inclusion { index: answered.sequence.0, size: state.size };
    let Reply::Proof(path) = service.link.call(request).await? else { return Err(unavailable()) };
    verify_inclusion(answered.leaf, answered.sequence.0, state.size, &path, state.root).map_err(|_| unavailable())?;
    let seal = Seal::sign(&service.epoch_key, service.custody.log_id(), state);
    Ok(Receipt { seal, sequence: answered.sequence, leaf: answered.leaf, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_equal_requests_one_is_answered_at_a_time_and_nothing_is_left_behind() {
        let turns = Arc::new(Turns::default());
        let key = Digest::of(b"key");
        let first = turns.take(key).await.unwrap();
        let waiting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(key).await.is_some() }
        });
        assert!(turns.take(Digest::of(b"other")).await.is_some(), "others do not wait");
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert!(waiting.await.unwrap());
        assert!(turns.0.lock().unwrap().is_empty());
    }
}
