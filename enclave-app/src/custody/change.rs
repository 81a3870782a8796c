//! Changing a key without making a version: revoke, suspend, resume, destroy, and what still decrypts.

use transcode_confidential::{
    audit::{KeyChange, RequestTag},
    ids::KeyVersion,
    keys::{KeyRequest, KeyTable},
};

use super::{Changed, Custody, CustodyError};
use crate::{
    grants::Permit,
    ledger::{Entry, Recorded},
};

/// What may be done to a key that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// No use any more.
    Revoke,
    /// No use until it is resumed.
    Suspend,
    /// Usable again.
    Resume,
    /// No use any more, and we forget the wrapped records.
    Destroy,
    /// The same for one version that is not active.
    DestroyVersion(KeyVersion),
    /// Decrypt under this version and later ones only.
    DecryptFrom(KeyVersion),
}

/// Who asks, on which condition, and under which idempotency key.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Who, and for which key.
    pub permit: &'a Permit,
    /// Only where this version is active.
    pub expected: Option<KeyVersion>,
    /// Goes on the record with what was done.
    pub tag: Option<RequestTag>,
}

impl Change {
    const fn request(self) -> KeyRequest {
        match self {
            Self::Revoke => KeyRequest::Change(KeyChange::Revoked),
            Self::Suspend => KeyRequest::Change(KeyChange::Suspended),
            Self::Resume => KeyRequest::Change(KeyChange::Resumed),
            Self::Destroy => KeyRequest::Change(KeyChange::Destroyed),
            Self::DestroyVersion(version) => KeyRequest::DestroyVersion(version),
            Self::DecryptFrom(version) => KeyRequest::DecryptFrom(version),
        }
    }

    /// Whether nothing is possible afterwards that was not before.
    fn only_takes_away(self, asked: &Asked<'_>, keys: &KeyTable) -> bool {
        match self {
            Self::Revoke | Self::Suspend | Self::Destroy | Self::DestroyVersion(_) => true,
            Self::Resume => false,
            Self::DecryptFrom(from) => keys.key(asked.permit.key()).is_some_and(|key| from > key.decrypt_from),
        }
    }
}

impl Custody {
    /// Changes a key. What only takes away is in force at once, and returns when that is durable; what gives something back
    /// waits for room like everything that grants.
    ///
    /// # Errors
    /// [`CustodyError::Key`] where the key's state stands against it; [`CustodyError::AuditUnavailable`] where it may have
    /// taken effect but is not known to be durable.
    pub async fn change(&self, asked: &Asked<'_>, change: Change) -> Result<Changed, CustodyError> {
        let decide = |keys: &KeyTable, now| {
            let id = asked.permit.key();
            asked.permit.check()?;
            keys.expect_active(id, asked.expected)?;
            let draft = keys.decide(id, &change.request(), now)?;
            match change {
                Change::Revoke | Change::Destroy => self.keyring.revoke(id),
                Change::Suspend => self.keyring.interrupt(id, |_| true),
                Change::DestroyVersion(version) => self.keyring.forget(id, version),
                Change::DecryptFrom(from) => self.keyring.interrupt(id, |version| version < from),
                Change::Resume => {}
            }
            Ok(Entry::from(draft.principal(asked.permit.principal()).request(asked.tag)))
        };
        let at_once = self.ledger.with_keys(|keys, _| change.only_takes_away(asked, keys));
        let recorded: Recorded =
            if at_once { self.ledger.decide_at_once(decide)? } else { self.ledger.decide(decide).await? };
        self.changed(asked.permit.key(), recorded).await
    }
}
