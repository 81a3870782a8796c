//! The source of attestation documents.

use futures_util::future::BoxFuture;
use thiserror::Error;

use crate::nsm::{AttestationRequest, NsmHandle, Priority};

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

impl DocumentSource for NsmHandle {
    fn document<'a>(&'a self, request: DocumentRequest<'a>) -> BoxFuture<'a, Result<Vec<u8>, DocumentError>> {
        let request = AttestationRequest {
            public_key: Some(request.public_key.to_vec()),
            user_data: Some(request.user_data.to_vec()),
            nonce: request.nonce.map(<[u8]>::to_vec),
        };
        Box::pin(async move {
            let document = self.attest(Priority::Kms, request).await;
            document.map_err(|error| DocumentError { reason: error.to_string() })
        })
    }
}
