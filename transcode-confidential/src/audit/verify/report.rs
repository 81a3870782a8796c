use std::fmt;

use serde::Serialize;

use crate::{
    attestation::ImageVerdict,
    audit::{LogState, segment::SegmentName},
    ids::{Digest, Epoch, LogId, Sequence},
    signature::PublicKey,
    time::Timestamp,
};

/// What a log is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All of it is as the enclaves wrote it, as far as the evidence reaches.
    Intact,
    /// A check sum is wrong or a file is incomplete: the disk may have done that. Not harmless: what was there is gone.
    Damaged,
    /// Something is well-formed, but is not what an enclave wrote.
    Tampered,
    /// Events that somebody holds evidence of are missing at the end, or the beginning is missing.
    Truncated,
    /// It is another history than the one that somebody holds evidence of.
    Forked,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Intact => "intact",
            Self::Damaged => "damaged",
            Self::Tampered => "tampered",
            Self::Truncated => "truncated",
            Self::Forked => "forked",
        })
    }
}

/// The first place that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The segment file, where the place is in one.
    #[serde(serialize_with = "as_text")]
    pub segment: Option<SegmentName>,
    /// Offset in that file, in bytes.
    pub offset: u64,
    /// The event that was due there.
    pub sequence: Sequence,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.segment {
            Some(segment) => write!(f, "{segment}, offset {}, event {}: {}", self.offset, self.sequence, self.what),
            None => write!(f, "event {}: {}", self.sequence, self.what),
        }
    }
}

/// What a person should know that is no fault of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub enum Note {
    /// Records after the last seal: an interrupted write. Nobody was ever told that they exist.
    #[serde(rename = "unsealed tail")]
    UnsealedTail,
    /// No checkpoint or receipt was given: a cut between two seals would not show.
    #[serde(rename = "unanchored")]
    Unanchored,
    /// Some images were not compared with expected measurements.
    #[serde(rename = "image unchecked")]
    ImageUnchecked,
    /// The log begins with a snapshot; the events before it were given up, on the record.
    #[serde(rename = "pruned")]
    Pruned,
    /// A receipt or checkpoint is of events that were given up: only its signature was checked.
    #[serde(rename = "evidence of pruned events")]
    EvidenceOfPruned,
    /// The log was taken up again from a copy, on the record and by order of the policy authority.
    #[serde(rename = "restored")]
    Restored,
    /// A receipt or checkpoint is of events that were given up when the log was taken up from a copy.
    #[serde(rename = "evidence of lost events")]
    EvidenceOfLost,
    /// A receipt or checkpoint is of a later epoch than the log has, so its signature could not be checked here.
    #[serde(rename = "evidence of an unknown epoch")]
    UnknownEpoch,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Which enclave wrote which events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EpochSummary {
    /// Number of the epoch.
    pub epoch: Epoch,
    /// Position of its first event.
    pub first: Sequence,
    /// Number of its sealed events.
    pub events: u64,
    /// Time of its first event.
    pub opened_at: Timestamp,
    /// The enclave, as its attestation document names it.
    pub enclave_id: String,
    /// Label of the expected image; `None` where any image was accepted.
    pub image: Option<String>,
    /// PCR0 of the image, in hexadecimal.
    pub pcr0: String,
    /// SHA-256 of the attestation document.
    pub document: Digest,
    /// The key that its seals are signed with.
    pub epoch_key: PublicKey,
    /// Later documents of the same epoch that verified.
    pub reattestations: u64,
    /// Whether this is only what the snapshot tells that the log begins with: the epoch's events were given up.
    pub told: bool,
    /// Whether it took up a copy by order of the policy authority: what came after the copy was given up.
    pub restored: bool,
}

impl EpochSummary {
    pub(super) fn label(image: &ImageVerdict) -> Option<String> {
        match image {
            ImageVerdict::Expected { label } => Some(label.clone()),
            _ => None,
        }
    }
}

/// What lies behind the last seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tail {
    /// The last segment.
    #[serde(serialize_with = "name_as_text")]
    pub segment: SegmentName,
    /// Where its sealed part ends; 0 where not even its header is whole.
    pub offset: u64,
    /// Whole records in the tail.
    pub records: u64,
    /// Length of the tail in bytes.
    pub bytes: u64,
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What the log is, in one word.
    pub verdict: Verdict,
    /// The log.
    pub log_id: Option<LogId>,
    /// The key that is the same for the whole life of the log.
    pub log_key: Option<PublicKey>,
    /// Number of sealed events, up to the first place that is wrong. Those before [`Report::begins`] were not verified.
    pub events: u64,
    /// The first event that was verified: 0, or that of the snapshot that stands for the events before.
    pub begins: Sequence,
    /// Events before this one were given up, as the log says.
    pub kept_from: Sequence,
    /// The epochs, in order.
    pub epochs: Vec<EpochSummary>,
    /// State of the log at the last seal.
    pub head: Option<LogState>,
    /// The first place that is wrong; `None` where nothing is.
    pub first_bad: Option<Finding>,
    /// What else should be known.
    pub notes: Vec<Note>,
    /// What lies behind the last seal of an intact log.
    pub tail: Option<Tail>,
}

fn as_text<S: serde::Serializer>(name: &Option<SegmentName>, serializer: S) -> Result<S::Ok, S::Error> {
    name.map(|name| name.to_string()).serialize(serializer)
}

fn name_as_text<S: serde::Serializer>(name: &SegmentName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}
