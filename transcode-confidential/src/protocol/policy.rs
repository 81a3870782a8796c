//! Signed policy: who may do what, said by an authority whose public key is measured in the image.
//!
//! A policy document is a tagged COSE_Sign1 (RFC 9052 section 4.2) with EdDSA, empty unprotected header, and external data
//! `transcode-confidential/policy/v1`. Its payload is deterministic CBOR:
//!
//! ```text
//! {0: 1, 1: deployment (text), 2: version (uint, from 1), 3: issued at (ms since the Unix epoch),
//!  4: [{0: principal (text, or "*"), 1: key id prefix (text), 2: [operation, ... ascending],
//!       optional 3: [{PCR: value (48 bytes), ...}, ...]}, ...], 5: [denied principal, ...]}
//! ```

mod caller;
pub(in crate::protocol) mod cose;
mod grant;
mod signed;

pub use caller::CallerImages;
pub use grant::{Grant, Operation, WhichPrincipal};
pub use signed::{DOCUMENT_LIMIT, PolicyError, SignedPolicy};

use crate::{
    attestation::Pcrs,
    cbor::{CborError, Reader, Writer},
    ids::{KeyId, Principal},
    time::Timestamp,
};

const GRANT_LIMIT: usize = 1024;
const DENIED_LIMIT: usize = 1024;
const DEPLOYMENT_LIMIT: usize = 128;

/// Grants and refusals. Whatever is not granted is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The deployment that it is for; another one refuses it.
    pub deployment: String,
    /// Strictly increasing; an enclave never goes back.
    pub version: u64,
    /// When the authority issued it, by its own clock.
    pub issued_at: Timestamp,
    /// Who may do what.
    pub grants: Vec<Grant>,
    /// Principals that may do nothing, whatever is granted.
    pub denied: Vec<Principal>,
}

impl Policy {
    /// Whether `principal` may do `operation` with `key`. `None` asks about operations that concern no key. Grants that demand an
    /// attested caller do not count.
    pub fn allows(&self, principal: &Principal, operation: Operation, key: Option<&KeyId>) -> bool {
        self.allows_caller(principal, None, operation, key)
    }

    /// As [`Policy::allows`], for a caller that has attested itself with these registers.
    pub fn allows_caller(
        &self,
        principal: &Principal,
        attested: Option<&Pcrs>,
        operation: Operation,
        key: Option<&KeyId>,
    ) -> bool {
        let is_as_demanded = |grant: &Grant| match (&grant.caller, attested) {
            (None, _) => true,
            (Some(images), Some(presented)) => images.include(presented),
            (Some(_), None) => false,
        };
        !self.denied.contains(principal)
            && self.grants.iter().any(|grant| {
                grant.principal.matches(principal)
                    && is_as_demanded(grant)
                    && grant.operations.contains(&operation)
                    && key.is_none_or(|key| key.as_str().starts_with(&grant.key_prefix))
            })
    }

    /// Whether `principal` may do `operation` with every key there is or ever will be: for what is told of all at once.
    pub fn allows_all(&self, principal: &Principal, operation: Operation) -> bool {
        let covers = |grant: &Grant| {
            grant.key_prefix.is_empty() && grant.principal.matches(principal) && grant.operations.contains(&operation)
        };
        !self.denied.contains(principal) && self.grants.iter().any(covers)
    }

    /// Whether `principal` has any grant that covers `key`.
    pub fn knows(&self, principal: &Principal, key: &KeyId) -> bool {
        Operation::ALL.into_iter().any(|operation| self.allows(principal, operation, Some(key)))
    }

    /// As [`Policy::knows`], for a caller that has attested itself with these registers.
    pub fn knows_caller(&self, principal: &Principal, attested: Option<&Pcrs>, key: &KeyId) -> bool {
        Operation::ALL.into_iter().any(|operation| self.allows_caller(principal, attested, operation, Some(key)))
    }

    /// Whether some grant for `principal` demands a caller with these registers.
    pub fn expects_caller(&self, principal: &Principal, presented: &Pcrs) -> bool {
        !self.denied.contains(principal)
            && self.grants.iter().any(|grant| {
                grant.principal.matches(principal)
                    && grant.caller.as_ref().is_some_and(|images| images.include(presented))
            })
    }

    /// The payload that is signed.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(6).uint(0).uint(1);
        out.uint(1).text(&self.deployment);
        out.uint(2).uint(self.version);
        out.uint(3).uint(self.issued_at.0);
        out.uint(4).array(self.grants.len());
        self.grants.iter().for_each(|grant| grant.put(&mut out));
        out.uint(5).array(self.denied.len());
        for principal in &self.denied {
            out.text(principal.as_str());
        }
        out.into_bytes()
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`CborError`] for whatever [`Policy::encode`] would not write.
    pub fn decode(payload: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(payload);
        let mut map = reader.int_map(6)?;
        if map.required(0)?.uint()? != 1 {
            return Err(CborError::Range);
        }
        let deployment = map.required(1)?.text(DEPLOYMENT_LIMIT)?.to_owned();
        let version = map.required(2)?.uint()?;
        let issued_at = Timestamp(map.required(3)?.uint()?);
        let grants = map.required(4)?;
        let grants = (0..grants.array(GRANT_LIMIT)?).map(|_| Grant::take(grants)).collect::<Result<_, _>>()?;
        let denied = map.required(5)?;
        let denied = (0..denied.array(DENIED_LIMIT)?)
            .map(|_| denied.text(Principal::MAX)?.parse().map_err(|_| CborError::Range))
            .collect::<Result<_, _>>()?;
        map.end()?;
        reader.end()?;
        if version == 0 { Err(CborError::Range) } else { Ok(Self { deployment, version, issued_at, grants, denied }) }
    }
}
