//! A log that is taken up again from a copy: only the policy authority may say so, and it is on the record.

use transcode_confidential::{
    audit::{
        AuditEventType, AuditSeverity, EventBody, EventDraft, LogState,
        segment::{Record, RecordKind},
    },
    fold::Fold,
    ids::{Epoch, LogId},
    protocol::{
        host::{HostError, Reply, Request},
        restore::SignedRestore,
    },
    signature::PublicKey,
};

use crate::{
    host::{HostFailure, HostLink},
    ledger::Entry,
};

/// A restore that the policy authority ordered.
pub(super) struct Ordered {
    /// The event that records it.
    pub(super) entry: Entry,
    /// Epochs up to this one are lost; their numbers are not given again, so that evidence of them is never taken for evidence
    /// of what comes now.
    pub(super) lost_epoch: Epoch,
}

/// Asks the parent for a restore document. Gives the event that records it, where it is signed by the authority, is for this
/// deployment and log, names exactly the log that was found, and was not recorded before. Any other one changes nothing: it is
/// old, or a lie.
pub(super) async fn ordered(
    link: &HostLink,
    (authority, deployment): (&PublicKey, &str),
    (log_id, state): (LogId, &LogState),
    fold: &Fold,
) -> Result<Option<Ordered>, HostFailure> {
    let document = match link.call(Request::Restoration).await {
        Ok(Reply::Policy(Some(document))) => document,
        Ok(Reply::Policy(None)) | Err(HostFailure::Refused(HostError::Refused)) => return Ok(None),
        Ok(_) => return Err(HostFailure::Unexpected),
        Err(error) => return Err(error),
    };
    let signed = match SignedRestore::verify(&document, authority) {
        Ok(signed) => signed,
        Err(error) => {
            tracing::warn!(%error, "the parent offered a restore document that is refused");
            return Ok(None);
        }
    };
    let restore = signed.restore();
    let names_this = restore.deployment == deployment
        && (restore.log_id, restore.size, restore.root) == (log_id, state.size, state.root);
    if !names_this || fold.restorations().any(|known| known.document == signed.digest()) {
        tracing::info!("the restore document is not about the log as it is; it changes nothing");
        return Ok(None);
    }
    let details =
        format!("taken up again from a copy of {} events, by order: {}", restore.size, shown(&restore.reason));
    let draft = EventDraft::new(AuditEventType::LogMaintained, details).severity(AuditSeverity::Warning).body(
        EventBody::Restored {
            size: restore.size,
            root: restore.root,
            document: signed.digest(),
            lost_epoch: restore.lost_epoch,
        },
    );
    tracing::warn!(size = restore.size, "the log is taken up again from a copy, by order of the policy authority");
    let records = vec![Record::new(RecordKind::Restoration, signed.document())];
    Ok(Some(Ordered { entry: Entry { draft, records }, lost_epoch: restore.lost_epoch }))
}

/// A reason as it may stand on the record: nothing in it that a terminal acts upon.
fn shown(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
