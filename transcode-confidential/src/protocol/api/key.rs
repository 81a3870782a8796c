use serde::{Deserialize, Serialize};

use super::ReceiptText;
use crate::{
    ids::{KeyId, KeyVersion},
    keys::{KeyRotationPolicy, KeyState, RotationNeed, VersionState},
    time::Timestamp,
};

/// Body of `POST /v1/keys`. What is left out is taken from the enclave's measured defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// Name of the new key; never used before.
    pub id: KeyId,
    /// Rotate a version at this age, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_secs: Option<u64>,
    /// Rotate a version after this many uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<u64>,
    /// Re-attest before a rotation takes effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_attestation: Option<bool>,
}

/// Body of `POST /v1/keys/{id}/rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// Rotate only where this version is active: makes the request safe to repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<KeyVersion>,
}

/// Body of `POST /v1/keys/{id}/` `revoke`, `suspend`, `resume`, `destroy` and `versions/{version}/destroy`; may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeKey {
    /// Only where this version is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<KeyVersion>,
}

/// Body of `POST /v1/keys/{id}/decrypt-from`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecryptFrom {
    /// The oldest version that decrypts from now on.
    pub version: KeyVersion,
    /// Only where this version is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<KeyVersion>,
}

/// What a key looks like from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its name.
    pub id: KeyId,
    /// Its state.
    pub state: KeyState,
    /// The oldest version that decrypts.
    pub decrypt_from: KeyVersion,
    /// The version that new messages use.
    pub active_version: Option<KeyVersion>,
    /// When it rotates.
    pub policy: KeyRotationPolicy,
    /// Whether it should rotate.
    pub rotation: RotationNeed,
    /// Every version, oldest first.
    pub versions: Vec<VersionInfo>,
}

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// Its number.
    pub version: KeyVersion,
    /// Its state.
    pub state: VersionState,
    /// When it was made.
    pub created_at: Timestamp,
    /// Uses granted so far.
    pub uses: u64,
}

/// Answer to whatever changes a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChanged {
    /// The key after the change.
    pub key: KeyInfo,
    /// Receipt of the event that records it.
    pub receipt: ReceiptText,
}

/// Answer to `GET /v1/keys`: the keys that the principal has some grant for, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// The keys.
    pub keys: Vec<KeyInfo>,
}
