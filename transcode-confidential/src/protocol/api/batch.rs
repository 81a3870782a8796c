use serde::{Deserialize, Serialize};

use super::{ApiError, CreateKey, KeyChanged};
use crate::ids::{KeyId, KeyVersion};

/// Most operations in one batch.
pub const BATCH_LIMIT: usize = 64;

/// Body of `POST /v1/batch`: operations that concern a key each, no key twice. They are independent: each succeeds or fails by
/// itself, in no order, and the answer comes when all of them are durable or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// 1 to [`BATCH_LIMIT`] of them.
    pub operations: Vec<BatchOperation>,
}

/// One operation of a batch: the field `op` names it, the others are those of the operation's own route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BatchOperation {
    /// Make a key.
    Generate(CreateKey),
    /// Make the next version.
    Rotate(OneKey),
    /// End a key.
    Revoke(OneKey),
    /// Suspend a key.
    Suspend(OneKey),
    /// Resume a key.
    Resume(OneKey),
    /// End a key and forget its wrapped records.
    Destroy(OneKey),
    /// The same for one version.
    DestroyVersion(OneVersion),
    /// Decrypt from a version on only.
    DecryptFrom(OneVersion),
}

/// A key in a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneKey {
    /// Its name.
    pub id: KeyId,
    /// Only where this version is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<KeyVersion>,
}

/// A version in a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneVersion {
    /// Name of the key.
    pub id: KeyId,
    /// The version.
    pub version: KeyVersion,
    /// Only where this version is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<KeyVersion>,
}

impl BatchOperation {
    /// The key that it concerns.
    pub const fn key(&self) -> &KeyId {
        match self {
            Self::Generate(create) => &create.id,
            Self::Rotate(one) | Self::Revoke(one) | Self::Suspend(one) | Self::Resume(one) | Self::Destroy(one) => {
                &one.id
            }
            Self::DestroyVersion(one) | Self::DecryptFrom(one) => &one.id,
        }
    }
}

/// Answer to `POST /v1/batch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchReply {
    /// One for each operation, in the order of the request.
    pub results: Vec<BatchResult>,
}

/// What became of one operation: as its own route would have answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchResult {
    /// The HTTP status that it would have had.
    pub status: u16,
    /// Of a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<KeyChanged>,
    /// Of anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}
