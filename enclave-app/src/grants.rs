//! The policy in force, and how a newer one takes its place.

use std::sync::Arc;

use tokio::sync::watch;
use transcode_confidential::{
    attestation::Pcrs,
    audit::{
        AuditEventType, EventBody, EventDraft, Receipt, RequestTag,
        segment::{Record, RecordKind},
    },
    ids::{KeyId, Principal},
    keys::KeyError,
    protocol::policy::{Operation, Policy, PolicyError, SignedPolicy},
    signature::PublicKey,
};

use crate::{
    callers::AttestedCaller,
    ledger::{Entry, Ledger, LedgerError, Recorded},
    lock::{Mutex, PoisonError},
};

/// The grants in force. Without a policy nothing is granted.
pub struct Grants {
    deployment: String,
    authority: PublicKey,
    current: watch::Sender<Option<Arc<Policy>>>,
    /// One adoption at a time: each is decided upon the version before.
    adopting: Mutex<()>,
}

/// That a principal may do an operation with a key. It is asked anew in the critical section that decides upon the key, so
/// a policy that takes the grant back leaves nobody in between.
#[derive(Clone)]
pub struct Permit {
    grants: Arc<Grants>,
    principal: Principal,
    attested: Option<Arc<AttestedCaller>>,
    operation: Operation,
    key: KeyId,
}

impl Permit {
    /// Who may.
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// With which key.
    pub const fn key(&self) -> &KeyId {
        &self.key
    }

    /// The caller, where it attested itself: secrets that it gets are encrypted to it, by [`AttestedCaller::seal`].
    pub const fn recipient(&self) -> Option<&Arc<AttestedCaller>> {
        self.attested.as_ref()
    }

    /// Whether the policy in force still grants it.
    ///
    /// # Errors
    /// [`KeyError::Unknown`]: what is not granted and what does not exist are not told apart.
    pub fn check(&self) -> Result<(), KeyError> {
        let attested = self.attested.as_deref();
        let holds = self.grants.allow_caller(&self.principal, attested, self.operation, Some(&self.key));
        if holds { Ok(()) } else { Err(KeyError::Unknown) }
    }
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
        Self { deployment, authority, current, adopting: Mutex::new(()) }
    }

    /// Whether `principal` may do `operation` with `key`.
    pub fn allow(&self, principal: &Principal, operation: Operation, key: Option<&KeyId>) -> bool {
        self.current.borrow().as_ref().is_some_and(|policy| policy.allows(principal, operation, key))
    }

    /// Whether `principal` may do `operation` with every key.
    pub fn allow_all(&self, principal: &Principal, operation: Operation) -> bool {
        self.current.borrow().as_ref().is_some_and(|policy| policy.allows_all(principal, operation))
    }

    /// A permit for what `principal` may do; none for what it may not.
    pub fn permit(self: &Arc<Self>, principal: &Principal, operation: Operation, key: &KeyId) -> Option<Permit> {
        self.permit_caller(principal, None, operation, key)
    }

    /// As [`Grants::permit`], for a caller that may have attested itself.
    pub fn permit_caller(
        self: &Arc<Self>,
        principal: &Principal,
        attested: Option<Arc<AttestedCaller>>,
        operation: Operation,
        key: &KeyId,
    ) -> Option<Permit> {
        let (grants, principal, key) = (Arc::clone(self), principal.clone(), key.clone());
        let permit = Permit { grants, principal, attested, operation, key };
        permit.check().is_ok().then_some(permit)
    }

    /// As [`Grants::allow`], for a caller that may have attested itself.
    pub fn allow_caller(
        &self,
        principal: &Principal,
        attested: Option<&AttestedCaller>,
        operation: Operation,
        key: Option<&KeyId>,
    ) -> bool {
        let pcrs = attested.map(AttestedCaller::pcrs);
        self.current.borrow().as_ref().is_some_and(|policy| policy.allows_caller(principal, pcrs, operation, key))
    }

    /// As [`Grants::knows`], for a caller that may have attested itself.
    pub fn knows_caller(&self, principal: &Principal, attested: Option<&AttestedCaller>, key: &KeyId) -> bool {
        let pcrs = attested.map(AttestedCaller::pcrs);
        self.current.borrow().as_ref().is_some_and(|policy| policy.knows_caller(principal, pcrs, key))
    }

    /// Whether some grant demands that `principal` is a caller with these registers.
    pub fn expects_caller(&self, principal: &Principal, presented: &Pcrs) -> bool {
        self.current.borrow().as_ref().is_some_and(|policy| policy.expects_caller(principal, presented))
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
    /// [`AdoptError::Policy`]: the policy in force stays. [`AdoptError::Ledger`]: the new one is in force, and not known to be
    /// durable.
    pub async fn adopt(
        &self,
        ledger: &Ledger,
        document: &[u8],
        tag: Option<RequestTag>,
    ) -> Result<(u64, Receipt), AdoptError> {
        let signed = SignedPolicy::verify(document, &self.authority)?;
        let version = signed.policy().version;
        let recorded = self.put_in_force(ledger, &signed, tag)?;
        let (_event, receipt) = recorded.persisted().await?;
        tracing::info!(version, "policy adopted");
        Ok((version, receipt))
    }

    /// Waits for nothing, as all that takes something away: what a new policy grants shows on the log behind the event that
    /// records it, and cannot be durable before it.
    fn put_in_force(
        &self,
        ledger: &Ledger,
        signed: &SignedPolicy,
        tag: Option<RequestTag>,
    ) -> Result<Recorded, AdoptError> {
        let _one = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        signed.check_succeeds(&self.deployment, self.version())?;
        let version = signed.policy().version;
        let draft = EventDraft::new(AuditEventType::PolicyChanged, format!("policy version {version} adopted"))
            .body(EventBody::PolicyAdopted { version, document: signed.digest() })
            .request(tag);
        let records = vec![Record::new(RecordKind::Policy, signed.document())];
        Ok(ledger.decide_at_once(|_, _| {
            self.current.send_replace(Some(Arc::new(signed.policy().clone())));
            Ok(Entry { draft, records })
        })?)
    }
}
