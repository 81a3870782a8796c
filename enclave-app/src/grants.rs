//! The policy in force, and how a newer one takes its place.

use std::sync::Arc;

use tokio::sync::watch;
use transcode_confidential::{
    audit::{
        AuditEventType, EventBody, EventDraft, Receipt,
        segment::{Record, RecordKind},
    },
    ids::{KeyId, Principal},
    protocol::policy::{Operation, Policy, PolicyError, SignedPolicy},
    signature::PublicKey,
};

use crate::ledger::{Entry, Ledger, LedgerError};

/// The grants in force. Without a policy nothing is granted.
pub struct Grants {
    deployment: String,
    authority: PublicKey,
    current: watch::Sender<Option<Arc<Policy>>>,
    /// One adoption at a time: each is decided upon the version before.
    adopting: tokio::sync::Mutex<()>,
}

/// Why a policy is not in force.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It is not a policy for us.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Its adoption cannot be recorded.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Grants {
    /// Starts with the newest policy on the log, which must still verify; without that, with none.
    pub fn new(deployment: String, authority: PublicKey, recorded: Option<&[u8]>) -> Self {
        let known = recorded.and_then(|document| SignedPolicy::verify(document, &authority).ok());
        let known = known.filter(|signed| signed.policy().deployment == deployment);
        let current = watch::Sender::new(known.map(|signed| Arc::new(signed.policy().clone())));
        Self { deployment, authority, current, adopting: tokio::sync::Mutex::new(()) }
    }

    /// Whether `principal` may do `operation` with `key`.
    pub fn allow(&self, principal: &Principal, operation: Operation, key: Option<&KeyId>) -> bool {
        self.current.borrow().as_ref().is_some_and(|policy| policy.allows(principal, operation, key))
    }

    /// Whether `principal` may know that `key` exists.
    pub fn knows(&self, principal: &Principal, key: &KeyId) -> bool {
        self.current.borrow().as_ref().is_some_and(|policy| policy.knows(principal, key))
    }

    /// Version of the policy in force; 0 for none.
    pub fn version(&self) -> u64 {
        self.current.borrow().as_ref().map_or(0, |policy| policy.version)
    }

    /// Adopts a signed policy that is newer than the one in force. From the event that records it on, everything that is put
    /// on the log was decided by it.
    ///
    /// # Errors
    /// [`AdoptError`]; the policy in force stays.
    pub async fn adopt(&self, ledger: &Ledger, document: &[u8]) -> Result<(u64, Receipt), AdoptError> {
        let signed = SignedPolicy::verify(document, &self.authority)?;
        let _one = self.adopting.lock().await;
        signed.check_succeeds(&self.deployment, self.version())?;
        let version = signed.policy().version;
        let draft = EventDraft::new(AuditEventType::PolicyChanged, format!("policy version {version} adopted"))
            .body(EventBody::PolicyAdopted { version, document: signed.digest() });
        let records = vec![Record::new(RecordKind::Policy, signed.document())];
        let recorded = ledger
            .decide(|_, _| {
                self.current.send_replace(Some(Arc::new(signed.policy().clone())));
                Ok(Entry { draft, records })
            })
            .await?;
        let (_event, receipt) = recorded.persisted().await?;
        tracing::info!(version, "policy adopted");
        Ok((version, receipt))
    }
}
