//! The source of attestation documents.

use futures_util::future::BoxFuture;
use thiserror::Error;
use transcode_confidential::{
    attestation::UserData,
    ids::{Digest, Epoch, LogId},
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

/// Who asks: the log that will record the key, and the epoch that asks. Both stand in every document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// The log.
    pub log_id: LogId,
    /// The epoch that is open, or about to be.
    pub epoch: Epoch,
}

impl Asking {
    /// The `user_data` of a document made for one KMS call: no consumer of another purpose accepts it.
    pub(super) fn user_data(self, request: Digest) -> Vec<u8> {
        let Self { log_id, epoch } = self;
        UserData::Kms { log_id, epoch, request }.encode()
    }
}
