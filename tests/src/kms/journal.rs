use std::collections::BTreeMap;

use transcode_confidential::{ids::Digest, time::Timestamp};

/// One request as the mock saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRequest {
    /// KMS's time.
    pub at: Timestamp,
    /// Number of the connection, from 1.
    pub connection: usize,
    /// The operation's name.
    pub operation: String,
    /// Who signed.
    pub access_key_id: Option<String>,
    /// The key as the request names it.
    pub key_id: Option<String>,
    /// The encryption context.
    pub context: BTreeMap<String, String>,
    /// SHA-256 of the attestation document.
    pub document: Option<Digest>,
    /// The document's `public_key`.
    pub public_key: Option<Vec<u8>>,
    /// The document's `user_data`.
    pub user_data: Option<Vec<u8>>,
    /// The error that the request was answered with; a fault on request counts as what it pretends to be.
    pub error: Option<String>,
}
