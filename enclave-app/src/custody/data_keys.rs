//! Data keys for those who work on their own cores.

use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use transcode_confidential::{
    audit::{KeyOperation, Receipt},
    entropy::Entropy,
    ids::KeyVersion,
    keys::{KeyError, KeyRequest},
    message::{DataKey, EncryptionContext, IssuedDataKey, WrappedDataKey, WrappingKey},
};

use super::{Custody, CustodyError, Purpose};
use crate::{callers::AttestedCaller, grants::Permit, keyring::KeyInUse, ledger::Recorded};

/// A data key that may be released: its event is durable.
pub struct Released<T> {
    /// The data key.
    pub data_key: T,
    /// Receipt of its event.
    pub receipt: Receipt,
    /// Whom it must be encrypted to: whoever asked for it, where that is an attested caller.
    pub recipient: Option<Arc<AttestedCaller>>,
}

/// An unwrapped data key whose event has its place in the log and is not durable yet.
#[must_use = "the use is not durable yet"]
pub struct PendingUnwrap {
    permit: Permit,
    recorded: Recorded,
    key: KeyInUse,
    data_key: DataKey,
}

impl Custody {
    /// Issues a data key for each context, every one a use with an event of its own, and waits once until all are durable.
    /// Where the allowance ends in between, those before are issued; there is at least one.
    ///
    /// # Errors
    /// [`CustodyError`]; nothing is released then. Uses that were placed before stay counted.
    pub async fn issue_data_keys(
        self: &Arc<Self>,
        permit: &Permit,
        contexts: &[EncryptionContext],
        content_id: Option<&str>,
        entropy: &dyn Entropy,
    ) -> Result<Vec<Released<IssuedDataKey>>, CustodyError> {
        let mut placed = Vec::with_capacity(contexts.len());
        for context in contexts {
            let purpose = Purpose { permit, operation: KeyOperation::IssueDataKey, context, content_id };
            match self.record_use(None, &purpose).await {
                Ok(recorded) => placed.push((recorded, context)),
                Err(error) if placed.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        // A rotation may fall in between, so each has the version of its own event.
        let mut issued = Vec::with_capacity(placed.len());
        let mut waits = Vec::with_capacity(placed.len());
        for (recorded, context) in placed {
            let version = recorded.event.key_version.ok_or(KeyError::Unknown)?;
            let key = self.material(permit.key(), version).await?;
            let wrapping = WrappingKey { key_id: permit.key(), version, material: key.material() };
            issued.push((IssuedDataKey::issue(&wrapping, context, entropy)?, key));
            waits.push(recorded.persisted());
        }
        let receipts = try_join_all(waits).await?;
        permit.check()?;
        let released = issued.into_iter().zip(receipts).map(|((data_key, key), (_event, receipt))| {
            if key.revoked().is_cancelled() {
                return Err(KeyError::Revoked.into());
            }
            Ok(Released { data_key, receipt, recipient: permit.recipient().cloned() })
        });
        released.collect()
    }

    /// Unwraps a data key and gives its event a place in the log. Nothing may be released before
    /// [`Custody::confirm_unwraps`].
    ///
    /// # Errors
    /// [`CustodyError`]. What does not verify is no use, and makes no event of one.
    pub async fn begin_unwrap(
        self: &Arc<Self>,
        permit: &Permit,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
        content_id: Option<&str>,
    ) -> Result<PendingUnwrap, CustodyError> {
        let operation = KeyOperation::UnwrapDataKey;
        let version: KeyVersion = wrapped.version();
        let request = KeyRequest::Use { operation, version: Some(version), context: None };
        let _ = self.ledger.with_keys(|keys, now| keys.decide(permit.key(), &request, now))?;
        let key = self.material(permit.key(), version).await?;
        let wrapping = WrappingKey { key_id: permit.key(), version, material: key.material() };
        let data_key = wrapped.unwrap(&wrapping, context)?;
        let recorded = self.record_use(Some(version), &Purpose { permit, operation, context, content_id }).await?;
        Ok(PendingUnwrap { permit: permit.clone(), recorded, key, data_key })
    }

    /// Waits, once for all of them, until each is durable.
    ///
    /// # Errors
    /// For each by itself: [`CustodyError::Key`] where its key or its grant was taken back meanwhile, else that its record
    /// could not be kept. Nothing is released then.
    pub async fn confirm_unwraps(&self, pending: Vec<PendingUnwrap>) -> Vec<Result<Released<DataKey>, CustodyError>> {
        join_all(pending.into_iter().map(|pending| async move {
            let PendingUnwrap { permit, recorded, key, data_key } = pending;
            let (_event, receipt) = recorded.persisted().await?;
            permit.check()?;
            if key.revoked().is_cancelled() {
                return Err(KeyError::Revoked.into());
            }
            Ok(Released { data_key, receipt, recipient: permit.recipient().cloned() })
        }))
        .await
    }
}
