use std::{sync::Arc, time::Duration};

use axum::body::{BodyDataStream, Bytes};
use futures_util::{Stream, StreamExt, stream};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use transcode_confidential::{
    audit::Outcome,
    ids::{Digest, KeyId, Principal},
    message::{Decryptor, Encryptor, MessageError},
    protocol::policy::Operation,
};

use super::Service;
use crate::custody::{Ended, UseGrant};

/// How long a caller may take to send the next piece of its body.
const IDLE: Duration = Duration::from_secs(30);
/// Largest piece that is worked on at once.
const PIECE: usize = 256 * 1024;

/// Why a stream ended before its end. The response's body ends without its terminator then, so the caller knows.
#[derive(Debug, Error)]
pub(super) enum TransferError {
    #[error("the request body ended early")]
    Body,
    #[error("the caller sent nothing for too long")]
    Idle,
    #[error("the key was revoked")]
    Revoked,
    #[error("the grant was taken back")]
    Denied,
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// The request body, piece by piece.
pub(super) struct Incoming {
    body: BodyDataStream,
    ahead: Bytes,
}

impl Incoming {
    pub(super) const fn new(body: BodyDataStream) -> Self {
        Self { body, ahead: Bytes::new() }
    }

    /// Puts back what was read too far.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        if self.ahead.is_empty() {
            match tokio::time::timeout(IDLE, self.body.next()).await {
                Ok(Some(Ok(bytes))) => self.ahead = bytes,
                Ok(Some(Err(_))) => return Err(TransferError::Body),
                Ok(None) => return Ok(None),
                Err(_) => return Err(TransferError::Idle),
            }
        }
        let piece = self.ahead.split_to(self.ahead.len().min(PIECE));
        Ok(Some(piece))
    }
}

/// One direction of the message format.
pub(super) enum Ciphering {
    Encrypt(Box<Encryptor>),
    Decrypt(Box<Decryptor>),
}

impl Ciphering {
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), MessageError> {
        match self {
            Self::Encrypt(encryptor) => encryptor.push(input, out),
            Self::Decrypt(decryptor) => decryptor.push(input, out),
        }
    }

    fn finish(self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        match self {
            Self::Encrypt(encryptor) => encryptor.finish(out),
            Self::Decrypt(decryptor) => decryptor.finish(),
        }
    }
}

/// A stream of content under a use that is on the record. However it ends, that is recorded too.
pub(super) struct Transfer {
    incoming: Incoming,
    ciphering: Option<Ciphering>,
    granted: UseGrant,
    policy_version: u64,
    head: Vec<u8>,
    tally: Tally,
}

impl Transfer {
    pub(super) fn new(
        service: Arc<Service>,
        (principal, id, content_id, operation): (Principal, KeyId, Option<String>, Operation),
        granted: UseGrant,
        incoming: Incoming,
        ciphering: Ciphering,
        head: Vec<u8>,
    ) -> Self {
        let policy_version = service.grants.version();
        let (version, began) = (granted.version, granted.began);
        let ended = Ended { began, outcome: Outcome::Aborted, bytes_in: 0, bytes_out: 0, digest: None };
        let tally = Tally { service, principal, id, content_id, operation, version, ended, hash: Sha256::new() };
        Self { incoming, ciphering: Some(ciphering), granted, policy_version, head, tally }
    }

    /// The response body. Nothing comes out of it that was not authenticated, or made, under the recorded use.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, TransferError>> {
        stream::unfold(Some(self), |transfer| async move {
            let mut transfer = transfer?;
            match transfer.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(transfer))),
                Ok(None) => None,
                Err(error) => {
                    tracing::info!(%error, "a stream was given up");
                    Some((Err(error), None))
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        let mut out = std::mem::take(&mut self.head);
        while let Some(ciphering) = &mut self.ciphering {
            if !out.is_empty() {
                break;
            }
            self.tally.check(&self.granted, &mut self.policy_version)?;
            match self.incoming.next().await? {
                Some(piece) => {
                    self.tally.ended.bytes_in += piece.len() as u64;
                    ciphering.push(&piece, &mut out)?;
                }
                None => {
                    if let Some(ciphering) = self.ciphering.take() {
                        ciphering.finish(&mut out)?;
                    }
                    self.tally.ended.outcome = Outcome::Complete;
                }
            }
        }
        self.tally.released(&out);
        Ok((!out.is_empty()).then(|| out.into()))
    }
}

/// Counts what is released, and records the end when it is dropped.
struct Tally {
    service: Arc<Service>,
    principal: Principal,
    id: KeyId,
    content_id: Option<String>,
    operation: Operation,
    version: transcode_confidential::ids::KeyVersion,
    ended: Ended,
    hash: Sha256,
}

impl Tally {
    /// A revocation, or a policy that takes the grant back, ends a stream between two pieces.
    fn check(&self, granted: &UseGrant, policy_version: &mut u64) -> Result<(), TransferError> {
        if granted.key.revoked().is_cancelled() {
            return Err(TransferError::Revoked);
        }
        let version = self.service.grants.version();
        if version != *policy_version {
            if !self.service.grants.allow(&self.principal, self.operation, Some(&self.id)) {
                return Err(TransferError::Denied);
            }
            *policy_version = version;
        }
        Ok(())
    }

    fn released(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.ended.bytes_out += bytes.len() as u64;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let digest = Digest::new(std::mem::take(&mut self.hash).finalize().into());
        let ended = Ended { digest: Some(digest), ..self.ended.clone() };
        let (custody, id, version) = (Arc::clone(&self.service.custody), self.id.clone(), self.version);
        let (principal, content_id) = (self.principal.clone(), self.content_id.clone());
        let endings = custody.endings.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let recording = async move {
                custody.end_use(&id, version, &principal, content_id.as_deref(), ended).await;
            };
            endings.spawn_on(recording, &runtime);
        }
    }
}
