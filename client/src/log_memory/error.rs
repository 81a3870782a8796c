use std::{io, path::PathBuf};

use thiserror::Error;
use transcode_confidential::{
    audit::{
        ReceiptError, checkpoint::NoteError, cose_receipt::CoseReceiptError, tree::ProofError, verify::FollowError,
    },
    ids::{Epoch, LogId, Sequence},
};

/// Why an enclave's log is not believed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The checkpoint is of another log or epoch than the attestation document names.
    #[error(
        "the enclave attested log {attested}, epoch {attested_epoch}, but shows a checkpoint of log {shown}, epoch {shown_epoch}"
    )]
    NotAttested {
        /// The log in the attestation document.
        attested: LogId,
        /// The epoch in it.
        attested_epoch: Epoch,
        /// The log of the checkpoint.
        shown: LogId,
        /// Its epoch.
        shown_epoch: Epoch,
    },
    /// The checkpoint is not a note that both keys signed.
    #[error("the log's checkpoint is wrong: {0}")]
    Checkpoint(#[from] NoteError),
    /// The checkpoint's text is not about the state that it came with.
    #[error("the log's checkpoint is not of the state that came with it")]
    CheckpointDiffers,
    /// The server is known, but with another log.
    #[error(
        "{server} had log {known} so far and now shows log {shown}: its history is gone or it is another enclave. If that is intended, accept the new log with --accept-log {shown}"
    )]
    UnknownLog {
        /// The server.
        server: String,
        /// The log that it had.
        known: LogId,
        /// The log that it has now.
        shown: LogId,
    },
    /// The key that lives as long as the log is another one.
    #[error("log {log_id} has another log key than the one that is remembered")]
    LogKeyChanged {
        /// The log.
        log_id: LogId,
    },
    /// The log has fewer events, or an earlier epoch, than it had.
    #[error(
        "log {log_id} went back: it had {remembered} events in epoch {remembered_epoch}, now it has {shown} in epoch {shown_epoch}"
    )]
    WentBack {
        /// The log.
        log_id: LogId,
        /// Number of events that are remembered.
        remembered: u64,
        /// Epoch that is remembered.
        remembered_epoch: Epoch,
        /// Number of events now.
        shown: u64,
        /// Epoch now.
        shown_epoch: Epoch,
    },
    /// The log does not contain what it contained.
    #[error(
        "log {log_id} forked: its {shown} events do not begin with the {remembered} that are remembered ({reason})"
    )]
    Forked {
        /// The log.
        log_id: LogId,
        /// Number of events that are remembered.
        remembered: u64,
        /// Number of events now.
        shown: u64,
        /// How the proof fails.
        reason: ProofError,
    },
    /// The log does not continue what is remembered, and says that the policy authority had it taken up from an older copy.
    #[error(
        "{contradiction}. The policy authority had the log taken up from a copy of {size} events, as event {sequence} records: what came after the copy is lost. If you know of that, accept it with --accept-restored; the evidence of what was lost is kept"
    )]
    Restored {
        /// What speaks against the log without that.
        contradiction: Box<LogError>,
        /// Number of events of the copy.
        size: u64,
        /// The event that records it.
        sequence: Sequence,
    },
    /// A reply's receipt does not verify.
    #[error("the receipt in the reply is wrong: {0}; whether the event is on the record is not proven")]
    Receipt(#[from] ReceiptError),
    /// A reply's receipt is for another log or epoch.
    #[error(
        "the receipt in the reply is for log {receipt}, epoch {receipt_epoch}, not for log {expected}, epoch {expected_epoch}"
    )]
    ForeignReceipt {
        /// The log of this session.
        expected: LogId,
        /// Its epoch.
        expected_epoch: Epoch,
        /// The log of the receipt.
        receipt: LogId,
        /// Its epoch.
        receipt_epoch: Epoch,
    },
    /// Events that were read are not those of the log.
    #[error("what was sent of the log is not what its enclaves wrote: {0}")]
    Events(FollowError),
    /// No path leads from an event to a tree of the log.
    #[error("event {event} is not proven to be among the {size}: {reason}")]
    NotIncluded {
        /// The event.
        event: Sequence,
        /// The tree size.
        size: u64,
        /// How the proof fails.
        reason: ProofError,
    },
    /// A COSE receipt does not verify.
    #[error("the COSE receipt is wrong: {0}")]
    CoseReceipt(CoseReceiptError),
    /// There is no such event yet.
    #[error("the log has {size} events, and no event {event}")]
    NoSuchEvent {
        /// The event.
        event: Sequence,
        /// Number of durable events.
        size: u64,
    },
    /// The event is no longer stored where the enclave reads.
    #[error("event {event} is no longer stored there: the first that is is {first}")]
    Pruned {
        /// The event.
        event: Sequence,
        /// The first that is stored.
        first: Sequence,
    },
    /// The memory changes faster than a checkpoint can be held against it.
    #[error("other processes changed the log memory in {dir} again and again", dir = dir.display())]
    Contended {
        /// The state directory.
        dir: PathBuf,
    },
    /// The memory cannot be read or written.
    #[error("the log memory {path} cannot be used: {source}", path = path.display())]
    Memory {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LogError {
    /// The reason's stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Restored { contradiction, .. } => contradiction.reason(),
            Self::NotAttested { .. } => "checkpoint-not-attested",
            Self::Checkpoint(_) | Self::CheckpointDiffers => "checkpoint-wrong",
            Self::UnknownLog { .. } => "log-unknown",
            Self::LogKeyChanged { .. } => "log-key-changed",
            Self::WentBack { .. } => "log-went-back",
            Self::Forked { .. } => "log-forked",
            Self::Receipt(_) => "receipt-wrong",
            Self::ForeignReceipt { .. } => "receipt-foreign",
            Self::Events(_) => "log-events-wrong",
            Self::NotIncluded { .. } => "event-not-included",
            Self::CoseReceipt(_) => "receipt-wrong",
            Self::NoSuchEvent { .. } => "event-unknown",
            Self::Pruned { .. } => "event-pruned",
            Self::Contended { .. } => "memory-contended",
            Self::Memory { .. } => "memory-unusable",
        }
    }
}
