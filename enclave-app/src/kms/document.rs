//! The source of attestation documents.

use futures_util::future::BoxFuture;
use thiserror::Error;
use transcode_confidential::{
    cbor::Writer,
    ids::{Digest, LogId},
};

/// No attestation document could be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no attestation document: {reason}")]
pub struct DocumentError {
    /// What the source of documents says.
    pub reason: String,
}

/// What a document shall say. Every field is bound into it by the signature.
#[derive(Debug, Clone, Copy)]
pub struct DocumentRequest<'a> {
    /// SubjectPublicKeyInfo, DER; at most 1,024 bytes.
    pub public_key: &'a [u8],
    /// At most 512 bytes.
    pub user_data: &'a [u8],
    /// At most 512 bytes; none where nobody challenges.
    pub nonce: Option<&'a [u8]>,
}

/// Where attestation documents come from: the NSM in production.
pub trait DocumentSource: Send + Sync {
    /// A document made now.
    fn document<'a>(&'a self, request: DocumentRequest<'a>) -> BoxFuture<'a, Result<Vec<u8>, DocumentError>>;
}

/// The `user_data` of a document made for one KMS call: the purpose that no other consumer accepts, the log if there is
/// one yet, and the hash of the request.
pub(super) fn kms_user_data(log_id: Option<LogId>, request: Digest) -> Vec<u8> {
    const VERSION: u64 = 1;
    const PURPOSE_KMS: u64 = 1;
    let mut out = Writer::new();
    out.map(if log_id.is_some() { 4 } else { 3 });
    out.uint(0).uint(VERSION);
    out.uint(1).uint(PURPOSE_KMS);
    if let Some(log_id) = log_id {
        out.uint(2).bytes(log_id.as_bytes());
    }
    out.uint(6).bytes(request.as_bytes());
    out.into_bytes()
}
