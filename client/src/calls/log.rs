use std::sync::{Arc, atomic::Ordering};

use transcode_confidential::{
    audit::Receipt,
    ids::LogId,
    protocol::api::{self, CheckpointReply, ConsistencyReply},
    signature::PublicKey,
};

use super::{Call, Client, REPLY_LIMIT, answer};
use crate::{
    error::ClientError,
    log_memory::{ConsistencyNeed, LogError, Remembered, VerifiedCheckpoint},
    session::{Attested, Connection, ServerKey},
};

/// The log of an attested enclave, after it was held against what is remembered of it.
#[derive(Debug)]
pub struct LogView {
    key: ServerKey,
    checkpoint: VerifiedCheckpoint,
    known_before: Option<Remembered>,
}

/// How often another process may change the memory while a checkpoint is held against it.
const MEMORY_RACES: usize = 8;

impl LogView {
    /// The checkpoint.
    pub const fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }

    /// What was remembered before, or `None` on first contact with this log.
    pub const fn known_before(&self) -> Option<&Remembered> {
        self.known_before.as_ref()
    }

    /// The key that signs its checkpoints for as long as it lives.
    pub const fn log_key(&self) -> PublicKey {
        self.checkpoint.log_key()
    }

    pub(super) const fn epoch_key(&self) -> PublicKey {
        self.checkpoint.epoch_key()
    }

    /// The log.
    pub const fn log_id(&self) -> LogId {
        self.checkpoint.log_id()
    }
}

impl Client {
    /// Attests the enclave, if that is due, and holds its log against what is remembered.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn log(&self) -> Result<Arc<LogView>, ClientError> {
        let (connection, view) = self.connection().await?;
        self.shared.session.give_back(connection);
        Ok(view)
    }

    /// Verifies a receipt of an answer and remembers its seal.
    pub(super) async fn keep_receipt(&self, view: &LogView, receipt: &Receipt) -> Result<(), ClientError> {
        view.checkpoint.verify_receipt(receipt)?;
        Ok(self.shared.remembering.remember(&self.shared.memory, receipt.seal).await?)
    }

    /// The view of the log behind this connection's key, checked once for each key: a restarted enclave has a new one.
    pub(super) async fn checked_log(&self, connection: &mut Connection<Attested>) -> Result<Arc<LogView>, ClientError> {
        let mut view = self.shared.view.lock().await;
        match &*view {
            Some(view) if view.key == *connection.attestation().key() => Ok(view.clone()),
            _ => {
                let checked = Arc::new(self.check_log(connection).await?);
                Ok(view.insert(checked).clone())
            }
        }
    }

    /// Asks for a checkpoint and for the proofs that connect it with what is remembered. What is remembered is read first,
    /// so that the checkpoint is never older for an honest reason; it is replaced only if it is still the same.
    async fn check_log(&self, connection: &mut Connection<Attested>) -> Result<LogView, ClientError> {
        let server = self.shared.session.endpoint().to_string();
        let log_id = connection.attestation().log_id();
        self.check_server(&server, log_id).await?;
        for _ in 0..MEMORY_RACES {
            let memory = self.shared.memory.clone();
            let known_before = blocking(move || memory.recall(log_id)).await?;
            let checkpoint = self.checkpoint(connection).await?;
            if let Some(known) = &known_before
                && let Err(contradiction) = self.continues(connection, known, &checkpoint).await?
            {
                let accepted = self.restored(connection, known, &checkpoint, contradiction).await?;
                if !accepted {
                    continue;
                }
                return Ok(LogView { key: connection.attestation().key().clone(), checkpoint, known_before });
            }
            let (memory, server) = (self.shared.memory.clone(), server.clone());
            let (held_against, next) = (known_before.clone(), checkpoint.clone());
            if blocking(move || memory.advance(&server, held_against.as_ref(), next)).await? {
                return Ok(LogView { key: connection.attestation().key().clone(), checkpoint, known_before });
            }
        }
        Err(LogError::Contended { dir: self.shared.memory.dir().to_owned() }.into())
    }

    /// Whether a checkpoint continues what is remembered. The inner error is what speaks against it.
    async fn continues(
        &self,
        connection: &mut Connection<Attested>,
        known: &Remembered,
        checkpoint: &VerifiedCheckpoint,
    ) -> Result<Result<(), LogError>, ClientError> {
        let needs = match known.needs(checkpoint) {
            Ok(needs) => needs,
            Err(contradiction) => return Ok(Err(contradiction)),
        };
        for need in needs {
            let proof = self.consistency(connection, &need).await?;
            if let Err(contradiction) = known.check(&need, &proof.proof) {
                return Ok(Err(contradiction));
            }
        }
        Ok(Ok(()))
    }

    /// Takes over a log that contradicts what is remembered, where the policy authority had it taken up from an older copy, the
    /// log continues that copy, and we were told to accept it. `false` where the memory has changed meanwhile.
    async fn restored(
        &self,
        connection: &mut Connection<Attested>,
        known: &Remembered,
        checkpoint: &VerifiedCheckpoint,
        contradiction: LogError,
    ) -> Result<bool, ClientError> {
        let (Some(need), Some(restored)) = (known.restored_needs(checkpoint), checkpoint.restored()) else {
            return Err(contradiction.into());
        };
        let proof = self.consistency(connection, &need).await?;
        known.check(&need, &proof.proof)?;
        if !self.shared.accept_restored.load(Ordering::Relaxed) {
            let (size, sequence) = (restored.size, restored.sequence);
            return Err(LogError::Restored { contradiction: Box::new(contradiction), size, sequence }.into());
        }
        let (memory, known, next) = (self.shared.memory.clone(), known.clone(), checkpoint.clone());
        Ok(blocking(move || memory.accept_restored(&known, next)).await?)
    }

    async fn check_server(&self, server: &str, shown: LogId) -> Result<(), LogError> {
        let (memory, name) = (self.shared.memory.clone(), server.to_owned());
        match blocking(move || memory.log_of(&name)).await? {
            Some(known) if known != shown && self.shared.accepted_log != Some(shown) => {
                Err(LogError::UnknownLog { server: server.to_owned(), known, shown })
            }
            _ => Ok(()),
        }
    }

    async fn checkpoint(&self, connection: &mut Connection<Attested>) -> Result<VerifiedCheckpoint, ClientError> {
        let (log_id, epoch) = (connection.attestation().log_id(), connection.attestation().epoch());
        let reply: CheckpointReply = self.ask(connection, Call::get(api::CHECKPOINT.into())).await?;
        Ok(VerifiedCheckpoint::verify(reply, log_id, epoch)?)
    }

    async fn consistency(
        &self,
        connection: &mut Connection<Attested>,
        need: &ConsistencyNeed,
    ) -> Result<ConsistencyReply, ClientError> {
        let path = format!("{}?old={}&new={}", api::CONSISTENCY, need.old, need.new);
        self.ask(connection, Call::get(path)).await
    }

    pub(super) async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        connection: &mut Connection<Attested>,
        call: Call,
    ) -> Result<T, ClientError> {
        let timeouts = &self.shared.session.settings().timeouts;
        let response = connection.fetch(call.request(None)?, REPLY_LIMIT, timeouts).await?;
        answer::success(response).and_then(|response| answer::json(response.body()))
    }
}

/// Runs what waits for files and locks where it keeps nobody else waiting.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(LogError::Memory { path: Default::default(), source: std::io::Error::other(error) }),
    }
}
