use serde::{Deserialize, Serialize};

use super::ReceiptText;
use crate::{ids::Sequence, time::Timestamp};

/// Something was done to the log, and is on the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMaintained {
    /// Position of the event.
    pub sequence: Sequence,
    /// Of a pruning: the first event that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<Sequence>,
    /// The receipt of the event.
    pub receipt: ReceiptText,
}

/// Body of `POST /v1/log/prune`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PruneRequest {
    /// Give up nothing from this event on, whatever the retention policy allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_to: Option<Sequence>,
}

/// Body of `POST /v1/log/holds` and `POST /v1/log/holds/lift`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// Name of the hold, 1 to 128 bytes.
    pub name: String,
}

/// Answer to `GET /v1/log/holds`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldList {
    /// The holds in force, by name.
    pub holds: Vec<HoldInfo>,
}

/// A legal hold in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldInfo {
    /// Its name.
    pub name: String,
    /// Position of the event that placed it.
    pub since: Sequence,
    /// Time of that event.
    pub placed_at: Timestamp,
    /// Who placed it.
    pub principal: Option<String>,
}
