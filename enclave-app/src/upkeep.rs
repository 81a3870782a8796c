//! What the enclave does by itself: rotations that are due, re-attestation, the clock, newer policies, counted refusals,
//! snapshots.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    attestation::Purpose,
    audit::{
        AuditEventType, EventBody, EventDraft,
        segment::{Record, RecordKind},
    },
    ids::Digest,
    protocol::{
        api::ErrorCode,
        host::{Reply, Request},
        metrics::Metric,
        policy::SignedPolicy,
    },
};

use crate::{
    archive::Archive,
    clock::Anchoring,
    config::Limits,
    custody::Custody,
    grants::{AdoptError, Grants},
    host::CurrentLink,
    ledger::{Entry, Refusal, RefusalMeter},
    metrics::Metrics,
};

/// A clock that drifts at every look stays without grants until the next hour's.
const ANCHOR_ATTEMPTS: usize = 3;
const REFUSALS_EVERY: Duration = Duration::from_secs(5);

/// Everything that upkeep looks after.
#[derive(Clone)]
pub struct Upkeep {
    /// The keys and the log.
    pub custody: Arc<Custody>,
    /// The policy in force.
    pub grants: Arc<Grants>,
    /// Counted refusals.
    pub refusals: Arc<RefusalMeter>,
    /// Snapshots and pruning.
    pub archive: Arc<Archive>,
    /// The parent.
    pub link: CurrentLink,
    /// How often.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Upkeep {
    /// Runs until `shutdown`, which ends it also where it waits for the parent or the NSM: what it does is complete or has
    /// not happened.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.look_after_everything() => {}
        }
    }

    async fn look_after_everything(&self) {
        let every = |period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut sweep = every(Duration::from_secs(self.limits.sweep_secs));
        let mut reattest = every(Duration::from_secs(self.limits.reattest_secs));
        let mut policy = every(Duration::from_secs(self.limits.policy_poll_secs));
        let mut refusals = every(REFUSALS_EVERY);
        // The epoch was attested a moment ago.
        reattest.tick().await;
        let mut anchored = true;
        self.archive.remind_parent().await;
        loop {
            tokio::select! {
                _ = sweep.tick() => {
                    if !anchored {
                        anchored = self.anchor_clock().await;
                    }
                    self.custody.sweep();
                    self.archive.look_after().await;
                }
                _ = reattest.tick() => anchored = self.reattest().await,
                _ = policy.tick() => self.look_for_policy().await,
                _ = refusals.tick() => self.refusals.flush(&self.custody.ledger),
            }
        }
    }

    /// Asks the parent for a newer policy.
    pub async fn look_for_policy(&self) {
        let known = self.grants.version();
        let document = match self.link.call(Request::Policy { after: known }).await {
            Ok(Reply::Policy(Some(document))) => document,
            Ok(_) => return,
            Err(error) => return tracing::debug!(%error, "the parent has no policy to tell"),
        };
        // The parent may offer the same document again and again; that is no event.
        if SignedPolicy::claimed_version(&document) == Ok(known) {
            return;
        }
        if let Err(AdoptError::Policy(error)) = self.grants.adopt(&self.custody.ledger, &document, None).await {
            tracing::warn!(%error, "the parent offered a policy that is refused");
            let details = format!("policy offered by the parent refused: {error}");
            let refusal = Refusal { principal: None, code: ErrorCode::Unverified, details };
            self.refusals.refuse(&self.custody.ledger, refusal);
        }
    }

    /// Whether the clock was anchored as well.
    async fn reattest(&self) -> bool {
        let ledger = &self.custody.ledger;
        let anchored = self.anchor_clock().await;
        let body = |document, reason| EventBody::Attestation { purpose: Purpose::Head, document, reason };
        let attested = self.custody.attestor.attest_head(ledger.persisted()).await;
        self.metrics.count(Metric::Attestations, &[if attested.is_ok() { "ok" } else { "failed" }]);
        let entry = match attested {
            Ok(document) => Entry {
                draft: EventDraft::new(AuditEventType::AttestationVerified, "attested again over the log's head")
                    .body(body(Some(Digest::of(&document)), None)),
                records: vec![Record::new(RecordKind::Attestation, document)],
            },
            Err(failure) => EventDraft::new(AuditEventType::AttestationFailed, "re-attestation failed")
                .body(body(None, Some(failure.reason())))
                .into(),
        };
        if ledger.record(entry).await.is_err() {
            tracing::warn!("the re-attestation could not be recorded");
        }
        anchored
    }

    /// Anchors the clock, and says whether it did. Drift stops grants until it is on the record and the clock was anchored
    /// again; what cannot be done now is tried again with the next sweep.
    async fn anchor_clock(&self) -> bool {
        for _ in 0..ANCHOR_ATTEMPTS {
            match self.custody.attestor.anchor_clock().await {
                Ok(Anchoring::Anchored) => return true,
                Ok(Anchoring::TooSlow { took }) => {
                    tracing::warn!(?took, "the NSM was too slow to anchor the clock");
                    return false;
                }
                Err(error) => {
                    tracing::warn!(%error, "the clock could not be anchored");
                    return false;
                }
                Ok(Anchoring::Drifted { ahead_ms }) => {
                    let details = format!("the clock was {ahead_ms} ms ahead");
                    let draft = EventDraft::new(AuditEventType::PolicyViolation, details)
                        .body(EventBody::Refused { code: "CLOCK_DRIFT".into(), count: 1 });
                    match self.custody.ledger.record(draft.into()).await {
                        Ok(recorded) => drop(recorded.persisted().await),
                        Err(_) => {
                            tracing::warn!("drift of the clock could not be recorded");
                            return false;
                        }
                    }
                }
            }
        }
        false
    }
}
