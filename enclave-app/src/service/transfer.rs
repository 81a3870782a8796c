use std::{sync::Arc, time::Duration};

use axum::body::{BodyDataStream, Bytes};
use futures_util::{Stream, StreamExt, stream};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use transcode_confidential::{
    audit::Outcome,
    ids::Digest,
    message::{Decryptor, Encryptor, MessageError, Reencryptor},
};

use super::{Service, memory::Room};
use crate::{
    custody::{OpenUse, UseGrant},
    keyring::KeyInUse,
};

/// How long a caller may take to send the next piece of its body.
const IDLE: Duration = Duration::from_secs(300);
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
    /// With the key that the old message is under.
    Reencrypt(Box<Reencryptor>, KeyInUse),
}

impl Ciphering {
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), TransferError> {
        match self {
            Self::Encrypt(encryptor) => encryptor.push(input, out)?,
            Self::Decrypt(decryptor) => decryptor.push(input, out)?,
            Self::Reencrypt(_, old) if old.revoked().is_cancelled() => return Err(TransferError::Revoked),
            Self::Reencrypt(reencryptor, _) => reencryptor.push(input, out)?,
        }
        Ok(())
    }

    fn finish(self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        match self {
            Self::Encrypt(encryptor) => encryptor.finish(out),
            Self::Decrypt(decryptor) => decryptor.finish(),
            Self::Reencrypt(reencryptor, _) => reencryptor.finish(out),
        }
    }
}

/// A stream of content under a use that is on the record. However it ends, that is recorded too.
pub(super) struct Transfer {
    incoming: Incoming,
    ciphering: Option<Ciphering>,
    head: Vec<u8>,
    tally: Tally,
    _room: Room,
}

impl Transfer {
    pub(super) fn new(
        service: Arc<Service>,
        (granted, room): (UseGrant, Room),
        incoming: Incoming,
        ciphering: Ciphering,
        head: Vec<u8>,
    ) -> Self {
        let UseGrant { key, open, .. } = granted;
        // No policy has version 0, so the permit is asked again before the first piece.
        let tally = Tally { service, policy_version: 0, key, open, hash: Sha256::new() };
        Self { incoming, ciphering: Some(ciphering), head, tally, _room: room }
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
            let revoked = self.tally.key.revoked().clone();
            let next = tokio::select! {
                next = self.incoming.next() => next?,
                () = revoked.cancelled() => return Err(TransferError::Revoked),
            };
            // Asked after the wait: nothing comes out behind a revocation.
            self.tally.check()?;
            match next {
                Some(piece) => {
                    self.tally.open.ended.bytes_in += piece.len() as u64;
                    ciphering.push(&piece, &mut out)?;
                }
                None => {
                    if let Some(ciphering) = self.ciphering.take() {
                        ciphering.finish(&mut out)?;
                    }
                    self.tally.open.ended.outcome = Outcome::Complete;
                }
            }
        }
        self.tally.released(&out);
        Ok((!out.is_empty()).then(|| out.into()))
    }
}

/// Counts what is released, for the record of the end.
struct Tally {
    service: Arc<Service>,
    policy_version: u64,
    key: KeyInUse,
    open: OpenUse,
    hash: Sha256,
}

impl Tally {
    /// A revocation, or a policy that takes the grant back, ends a stream between two pieces.
    fn check(&mut self) -> Result<(), TransferError> {
        if self.key.revoked().is_cancelled() {
            return Err(TransferError::Revoked);
        }
        let version = self.service.grants.version();
        if version != self.policy_version {
            self.open.permit().check().map_err(|_| TransferError::Denied)?;
            self.policy_version = version;
        }
        Ok(())
    }

    fn released(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.open.ended.bytes_out += bytes.len() as u64;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.open.ended.digest = Some(Digest::new(std::mem::take(&mut self.hash).finalize().into()));
    }
}
