use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use transcode_confidential::{
    audit::{
        AuditEvent, LogState,
        cose_receipt::CoseReceipt,
        tree::{Frontier, Node, verify_consistency, verify_inclusion},
        verify::{FollowError, LogFollower, Page},
    },
    ids::{LeafHash, LogId, RootHash, Sequence},
    protocol::api::{self, ConsistencyReply, InclusionReply},
};

use super::{Call, Client, LogView, answer, log::blocking};
use crate::{
    error::ClientError,
    log_memory::LogError,
    session::{Attested, Connection, SessionError},
};

/// Reads the durable events of the log through the service, from some event on, oldest first.
///
/// The service is asked for entries and seals and is not believed: a page is given only after its chain, its tree and its seals
/// were verified, and after its end was proven to be a beginning of the attested checkpoint, or was sealed by the attested epoch
/// key. What it comes to is remembered as any checkpoint is. Memory is that of one page. After an error the next call goes on
/// where the last page ended, over a new connection if need be: without a gap, and without an event twice.
#[derive(Debug)]
pub struct LogReader {
    client: Client,
    from: Sequence,
    follower: Option<LogFollower>,
    /// A hint of the server's, for the server.
    cursor: Option<String>,
}

/// Events that are proven to be on the log.
#[derive(Debug)]
pub struct LogPage {
    /// The events, oldest first, each with its leaf. None where there is nothing new yet.
    pub events: Vec<(AuditEvent, Vec<u8>)>,
    /// Whether the log has more durable events than this, as the service says.
    pub more: bool,
}

/// That an event is in a tree, proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inclusion {
    /// Position of the event.
    pub event: Sequence,
    /// The tree size.
    pub size: u64,
    /// The audit path, bottom up.
    pub path: Vec<Node>,
}

impl Client {
    /// A reader of the log from event `from` on. Needs the grant `read-audit`.
    pub fn read_log(&self, from: Sequence) -> LogReader {
        LogReader { client: self.clone(), from, follower: None, cursor: None }
    }

    /// Asks for the audit path of an event, and verifies that it leads from `leaf` to `root`.
    ///
    /// # Errors
    /// [`LogError::NotIncluded`] where it does not; any other [`ClientError`].
    pub async fn prove_inclusion(
        &self,
        (event, leaf): (Sequence, LeafHash),
        (size, root): (u64, RootHash),
    ) -> Result<Inclusion, ClientError> {
        let reply: InclusionReply = self.call(inclusion_call(event.0, size)).await?;
        verify_inclusion(leaf, event.0, size, &reply.proof, root).map_err(|reason| LogError::NotIncluded {
            event,
            size,
            reason,
        })?;
        Ok(Inclusion { event, size, path: reply.proof })
    }

    /// Asks for a COSE receipt of an event in the newest tree, and verifies it under the log key from the event's leaf hash.
    ///
    /// # Errors
    /// [`LogError::CoseReceipt`] where it does not verify; any other [`ClientError`].
    pub async fn cose_receipt(&self, event: Sequence, leaf: LeafHash) -> Result<CoseReceipt, ClientError> {
        let call = Call::get(format!("{}?event={event}", api::RECEIPT));
        let (body, view) = self.exchange(&call).await?;
        let receipt = CoseReceipt::from_bytes(&body).map_err(LogError::CoseReceipt)?;
        receipt.verify(&view.log_key(), event, leaf).map_err(LogError::CoseReceipt)?;
        Ok(receipt)
    }

    /// Asks for the proof that the log of `new` events begins with the log of `old` events, and verifies it.
    ///
    /// # Errors
    /// [`LogError::Forked`] where the proof does not lead to both roots; any other [`ClientError`].
    pub async fn prove_consistency(
        &self,
        log_id: LogId,
        (old, old_root): (u64, RootHash),
        (new, new_root): (u64, RootHash),
    ) -> Result<Vec<Node>, ClientError> {
        let reply: ConsistencyReply = self.call(consistency_call(old, new)).await?;
        verify_consistency(old, old_root, new, new_root, &reply.proof).map_err(|reason| LogError::Forked {
            log_id,
            remembered: old,
            shown: new,
            reason,
        })?;
        Ok(reply.proof)
    }
}

impl LogReader {
    /// The event that comes next.
    pub fn position(&self) -> Sequence {
        self.follower.as_ref().map_or(self.from, |follower| Sequence(follower.size()))
    }

    /// State of the log behind what was read; `None` before the first page.
    pub fn state(&self) -> Option<LogState> {
        self.follower.as_ref().map(LogFollower::state)
    }

    /// The next page; waits up to `wait`, and at most as long as the service lets it, where there is nothing new.
    ///
    /// # Errors
    /// [`LogError::Pruned`] where the next event is no longer stored; [`LogError::Events`], [`LogError::Forked`] where what was
    /// sent is not proven to be the log; any other [`ClientError`]. The reader can go on after each.
    pub async fn next(&mut self, wait: Duration) -> Result<LogPage, ClientError> {
        // A connection that was lost while it idled says nothing about the next.
        let mut attempts = 1;
        loop {
            match self.attempt(wait).await {
                Err(ClientError::Session(SessionError::NotSent | SessionError::Lost(_)))
                    if attempts < super::ATTEMPTS =>
                {
                    attempts += 1;
                }
                // Segments move; without the hint the service looks for the place anew.
                Err(error @ ClientError::Unavailable(_)) => {
                    self.cursor = None;
                    return Err(error);
                }
                result => return result,
            }
        }
    }

    async fn attempt(&mut self, wait: Duration) -> Result<LogPage, ClientError> {
        let (mut connection, view) = self.client.connection().await?;
        let position = self.position();
        if self.follower.is_none() && position.0 > view.checkpoint().state().size {
            return Err(LogError::NoSuchEvent { event: position, size: view.checkpoint().state().size }.into());
        }
        let mut path = format!("{}?from={position}&wait={}", api::LOG, wait.as_secs());
        if let Some(cursor) = &self.cursor {
            path = format!("{path}&cursor={cursor}");
        }
        let timeouts = &self.client.shared.session.settings().timeouts;
        let response = connection.fetch(Call::get(path).request(None)?, api::LOG_PAGE_LIMIT, timeouts).await?;
        let headers = response.headers().clone();
        let body = answer::success(response)?.into_body();
        let (first, size) = (number(&headers, api::FIRST_HEADER)?, number(&headers, api::SIZE_HEADER)?);
        if first > position.0 {
            return Err(LogError::Pruned { event: position, first: Sequence(first) }.into());
        }
        let cursor = headers.get(api::CURSOR_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut follower = match self.follower.clone() {
            Some(follower) => follower,
            None if body.is_empty() && position.0 < view.checkpoint().state().size => {
                // The place was not reached yet.
                self.client.shared.session.give_back(connection);
                self.cursor = cursor;
                return Ok(LogPage { events: Vec::new(), more: true });
            }
            None => self.start(&mut connection, &view, &body).await?,
        };
        follower.know(view.checkpoint().state().epoch, view.epoch_key());
        let page = follower.read(&body).map_err(LogError::Events)?;
        let events = match page {
            Some(page) => {
                self.prove(&mut connection, &view, &page).await?;
                follower.accept(page)
            }
            None => Vec::new(),
        };
        self.client.shared.session.give_back(connection);
        self.cursor = cursor;
        let more = follower.size() < size;
        self.follower = Some(follower);
        Ok(LogPage { events, more })
    }

    /// The follower at the start: at the beginning of the log, or behind a last event whose tree is proven to be a beginning of
    /// the attested checkpoint.
    async fn start(
        &self,
        connection: &mut Connection<Attested>,
        view: &Arc<LogView>,
        body: &[u8],
    ) -> Result<LogFollower, ClientError> {
        let (log_id, log_key, state) = (view.log_id(), view.log_key(), view.checkpoint().state());
        let size = self.from.0;
        let Some(last) = size.checked_sub(1) else { return Ok(LogFollower::from_start(log_id, log_key)) };
        let last_hash =
            if size == state.size { state.last } else { LogFollower::previous_of(body).map_err(LogError::Events)? };
        let path: InclusionReply = self.client.ask(connection, inclusion_call(last, size)).await?;
        let tree = Frontier::from_last_path(size, last_hash, &path.proof).ok_or(LogError::Events(FollowError::Seal))?;
        self.consistent(connection, view, (size, tree.root())).await?;
        Ok(LogFollower::behind(log_id, log_key, last_hash, tree))
    }

    /// What is not newer than the checkpoint must be a beginning of it; what is newer must be sealed by the attested key.
    async fn prove(
        &self,
        connection: &mut Connection<Attested>,
        view: &Arc<LogView>,
        page: &Page,
    ) -> Result<(), ClientError> {
        let (state, known) = (page.state(), view.checkpoint().state());
        if state.size <= known.size {
            return self.consistent(connection, view, (state.size, state.root)).await;
        }
        if !page.signed || state.epoch != known.epoch {
            return Err(LogError::Events(FollowError::Seal).into());
        }
        let (memory, seal) = (self.client.shared.memory.clone(), page.seal);
        Ok(blocking(move || memory.advance_by(&seal)).await?)
    }

    async fn consistent(
        &self,
        connection: &mut Connection<Attested>,
        view: &Arc<LogView>,
        (size, root): (u64, RootHash),
    ) -> Result<(), ClientError> {
        let state = view.checkpoint().state();
        let proof = if size == 0 || size == state.size {
            Vec::new()
        } else {
            let reply: ConsistencyReply = self.client.ask(connection, consistency_call(size, state.size)).await?;
            reply.proof
        };
        verify_consistency(size, root, state.size, state.root, &proof).map_err(|reason| LogError::Forked {
            log_id: view.log_id(),
            remembered: size,
            shown: state.size,
            reason,
        })?;
        Ok(())
    }
}

fn inclusion_call(event: u64, size: u64) -> Call {
    Call::get(format!("{}?event={event}&size={size}", api::INCLUSION))
}

fn consistency_call(old: u64, new: u64) -> Call {
    Call::get(format!("{}?old={old}&new={new}", api::CONSISTENCY))
}

fn number(headers: &HeaderMap, name: &str) -> Result<u64, SessionError> {
    let value = headers.get(name).and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok());
    value.ok_or_else(|| SessionError::Protocol(format!("a page of the log without {name}")))
}
