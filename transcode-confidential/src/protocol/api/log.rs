use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    audit::{
        LogState,
        segment::{SegmentError, SegmentName},
        tree::Node,
    },
    ids::{Digest, Epoch, LogId, RootHash, Sequence},
    signature::PublicKey,
    time::Timestamp,
};

/// Answer to `GET /v1/checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointReply {
    /// The log.
    pub log_id: LogId,
    /// Its persisted state: what the checkpoint says.
    pub state: LogState,
    /// C2SP signed note by the log key and the epoch key.
    pub checkpoint: String,
    /// The key that is the same for the life of the log.
    pub log_key: PublicKey,
    /// The key of the current epoch, which seals and receipts are signed with.
    pub epoch_key: PublicKey,
    /// The newest copy that this log was taken up again from, by order of the policy authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// A copy of the log that was taken up by order of the policy authority: what came after it was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Position of the event that records it.
    pub sequence: Sequence,
    /// The epoch that took the copy up.
    pub epoch: Epoch,
    /// Number of events of the copy.
    pub size: u64,
    /// Its root.
    pub root: RootHash,
    /// SHA-256 of the authority's document.
    pub document: Digest,
}

/// Answer to `GET /v1/consistency`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsistencyReply {
    /// The smaller tree size.
    pub old: u64,
    /// The larger tree size.
    pub new: u64,
    /// RFC 6962 consistency proof, each hash in hexadecimal.
    #[serde(with = "hex_nodes")]
    pub proof: Vec<Node>,
}

/// Answer to `GET /v1/inclusion`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InclusionReply {
    /// Position of the event.
    pub event: u64,
    /// The tree size.
    pub size: u64,
    /// RFC 6962 audit path, bottom up, each hash in hexadecimal.
    #[serde(with = "hex_nodes")]
    pub proof: Vec<Node>,
}

/// Where an event lies in the parent's segments: `<segment>@<offset>@<sequence>`. A hint and no more: whoever reads there
/// checks what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCursor {
    /// The segment.
    pub segment: SegmentName,
    /// Offset of a record in it.
    pub offset: u64,
    /// The event that is due there.
    pub sequence: Sequence,
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}@{}", self.segment, self.offset, self.sequence)
    }
}

impl FromStr for LogCursor {
    type Err = SegmentError;

    fn from_str(text: &str) -> Result<Self, SegmentError> {
        let parse = || {
            let mut parts = text.splitn(3, '@');
            let segment = parts.next()?.parse().ok()?;
            let (offset, sequence) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some(Self { segment, offset, sequence: Sequence(sequence) })
        };
        let cursor = parse().filter(|cursor: &Self| cursor.to_string() == text);
        cursor.ok_or(SegmentError::Malformed("cursor"))
    }
}

/// Answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the enclave's software.
    pub version: String,
    /// The enclave: the NSM's module id.
    pub enclave_id: String,
    /// The log.
    pub log_id: LogId,
    /// Events that are durable.
    pub persisted: LogState,
    /// Events that have their place in the log, of which the last may not be durable yet.
    pub placed_size: u64,
    /// Version of the policy in force; 0 for none.
    pub policy_version: u64,
    /// Number of keys that are active.
    pub active_keys: u64,
    /// Number of keys at or past 80 % of their age or uses.
    pub rotations_due: u64,
    /// The enclave's clock.
    pub time: Timestamp,
    /// When the enclave booted.
    pub booted_at: Timestamp,
    /// KMS as the enclave last saw it.
    pub kms: KmsHealth,
}

/// KMS as the enclave last saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsHealth {
    /// ARN of the KMS key in the measured configuration.
    pub key_arn: String,
    /// Calls that succeeded.
    pub succeeded: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Cause of the last failure and what to do about it.
    pub last_failure: Option<String>,
}

mod hex_nodes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::audit::tree::Node;

    pub(super) fn serialize<S: Serializer>(nodes: &[Node], serializer: S) -> Result<S::Ok, S::Error> {
        nodes.iter().map(hex::encode).collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Node>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|text| {
                let mut node = Node::default();
                hex::decode_to_slice(text, &mut node).map(|()| node).map_err(D::Error::custom)
            })
            .collect()
    }
}
