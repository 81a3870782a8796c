use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;
use transcode_confidential::{
    audit::{AuditEventType, EventBody, EventDraft},
    ids::Principal,
    protocol::{api::ErrorCode, metrics::Metric},
};

use super::Ledger;
use crate::{
    lock::{Mutex, PoisonError},
    metrics::Metrics,
};

/// Refusals that one principal gets recorded one by one before they are counted.
const BURST: u32 = 10;
/// How long counted refusals are held before they become one event.
const INTERVAL: Duration = Duration::from_secs(10);
/// Characters of a refusal's details.
const DETAILS: usize = 400;
/// Principals that are told apart; whoever comes on top shares a bucket with the unauthenticated.
const PRINCIPALS: usize = 1024;

/// Puts refusals on the record without letting whoever is refused fill the disk: the first few of a principal one by one,
/// the rest as one counted event an interval, and none where the ledger has little room left.
#[derive(Default)]
pub struct RefusalMeter {
    buckets: Mutex<HashMap<(Option<Principal>, ErrorCode), Bucket>>,
    metrics: Arc<Metrics>,
}

struct Bucket {
    since: Instant,
    recorded: u32,
    counted: u64,
    event_type: AuditEventType,
}

/// What was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Who asked; `None` where nobody proved to be anybody.
    pub principal: Option<Principal>,
    /// The answer.
    pub code: ErrorCode,
    /// For people. Nothing in it may come from the caller unchecked.
    pub details: String,
}

impl Refusal {
    const fn event_type(&self) -> AuditEventType {
        match self.code {
            ErrorCode::Denied | ErrorCode::Unauthenticated => AuditEventType::UnauthorizedAccess,
            ErrorCode::CallerRefused => AuditEventType::AttestationFailed,
            _ => AuditEventType::PolicyViolation,
        }
    }
}

impl RefusalMeter {
    /// One that counts with what else the enclave counts.
    pub fn counting(metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// Refusals that were counted and are not on the record yet.
    pub fn waiting(&self) -> u64 {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).values().map(|bucket| bucket.counted).sum()
    }

    /// Takes in a refusal.
    pub fn refuse(&self, ledger: &Ledger, refusal: Refusal) {
        self.metrics.count(Metric::Refusals, &[&refusal.code.to_string()]);
        let event_type = refusal.event_type();
        let now = Instant::now();
        let (record, key) = {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            let mut key = (refusal.principal.clone(), refusal.code);
            if buckets.len() >= PRINCIPALS && !buckets.contains_key(&key) {
                key.0 = None;
            }
            let bucket =
                buckets.entry(key.clone()).or_insert(Bucket { since: now, recorded: 0, counted: 0, event_type });
            let record = bucket.recorded < BURST;
            bucket.recorded += u32::from(record);
            bucket.counted += u64::from(!record);
            (record, key)
        };
        if record
            && !ledger
                .record_if_idle(draft(event_type, &refusal.principal, refusal.code, 1, shown(&refusal.details)).into())
        {
            self.count_instead(&key);
        }
    }

    /// Turns what was counted for an interval into events. Call it every few seconds.
    pub fn flush(&self, ledger: &Ledger) {
        self.flush_older_than(INTERVAL, ledger);
    }

    /// Turns all that was counted into events, at the end.
    pub fn flush_all(&self, ledger: &Ledger) {
        self.flush_older_than(Duration::ZERO, ledger);
    }

    fn flush_older_than(&self, age: Duration, ledger: &Ledger) {
        let now = Instant::now();
        let mut due = Vec::new();
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).retain(|(principal, code), bucket| {
            if now.duration_since(bucket.since) < age {
                return true;
            }
            if bucket.counted > 0 {
                due.push((principal.clone(), *code, bucket.event_type, std::mem::take(&mut bucket.counted)));
            }
            // One of the singles comes back an interval; who was quiet for long enough is forgotten.
            bucket.since = now;
            bucket.recorded = bucket.recorded.saturating_sub(1);
            bucket.recorded > 0
        });
        for (principal, code, event_type, count) in due {
            let details = format!("{count} more refusals");
            let entry = draft(event_type, &principal, code, count, details).into();
            if !ledger.record_if_idle(entry) {
                let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
                let bucket = buckets.entry((principal, code)).or_insert(Bucket {
                    since: now,
                    recorded: BURST,
                    counted: 0,
                    event_type,
                });
                bucket.counted += count;
            }
        }
    }

    fn count_instead(&self, key: &(Option<Principal>, ErrorCode)) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(key) {
            bucket.counted += 1;
        }
    }
}

/// A text as it may stand on the record: short, and nothing in it that a terminal acts upon.
fn shown(text: &str) -> String {
    text.chars()
        .take(DETAILS)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

fn draft(
    event_type: AuditEventType,
    principal: &Option<Principal>,
    code: ErrorCode,
    count: u64,
    details: String,
) -> EventDraft {
    let draft = EventDraft::new(event_type, details).body(EventBody::Refused { code: code.to_string(), count });
    match principal {
        Some(principal) => draft.principal(principal),
        None => draft,
    }
}
