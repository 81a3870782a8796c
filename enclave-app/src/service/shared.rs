//! Attestation documents that many callers share, so that no crowd of strangers can use up the NSM's time for everybody else:
//! however many ask at the same time, one document answers all of them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use transcode_confidential::attestation::{NoncePath, SharedNonce};

use crate::{attestor::SelfAttestor, nsm::NsmError};

/// Least time between two documents.
const PAUSE: Duration = Duration::from_millis(20);
/// Callers that may wait for the next document.
const PLACES: usize = 4096;

type Answer = Result<(Arc<[u8]>, NoncePath), NsmError>;

/// Collects nonces while a document is being made, and answers them all with the next.
#[derive(Clone)]
pub struct SharedDocuments(Arc<Inner>);

struct Inner {
    attestor: SelfAttestor,
    spki: Arc<[u8]>,
    waiting: Mutex<Waiting>,
    /// When the last document was asked for. Held while one is being made.
    turn: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Waiting {
    nonces: Vec<([u8; 32], oneshot::Sender<Answer>)>,
    scheduled: bool,
}

impl SharedDocuments {
    /// Documents over the key of the channel.
    pub fn new(attestor: SelfAttestor, spki: Arc<[u8]>) -> Self {
        let waiting = Mutex::new(Waiting::default());
        Self(Arc::new(Inner { attestor, spki, waiting, turn: tokio::sync::Mutex::new(None) }))
    }

    /// A document that answers `nonce`, among others.
    pub(super) async fn document(&self, nonce: [u8; 32]) -> Answer {
        let (answer, answered) = oneshot::channel();
        let begin = {
            let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // Who gave up makes room.
            waiting.nonces.retain(|(_, answer)| !answer.is_closed());
            if waiting.nonces.len() >= PLACES {
                return Err(NsmError::Busy);
            }
            waiting.nonces.push((nonce, answer));
            !std::mem::replace(&mut waiting.scheduled, true)
        };
        if begin {
            // A task of its own: it goes on where the caller that began it goes away.
            let inner = Arc::clone(&self.0);
            tokio::spawn(async move { inner.answer_all().await });
        }
        answered.await.unwrap_or(Err(NsmError::Busy))
    }
}

impl Inner {
    async fn answer_all(&self) {
        let mut turn = self.turn.lock().await;
        if let Some(last) = *turn {
            sleep_until(last + PAUSE).await;
        }
        *turn = Some(Instant::now());
        // Whoever comes from here on is answered by the next document.
        let nonces = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.scheduled = false;
            std::mem::take(&mut waiting.nonces)
        };
        let (nonces, answers): (Vec<_>, Vec<_>) = nonces.into_iter().unzip();
        let Some(shared) = SharedNonce::of(&nonces) else { return };
        let document: Result<Arc<[u8]>, _> =
            self.attestor.channel_document(&self.spki, &shared.nonce()).await.map(Into::into);
        for (index, answer) in (0..).zip(answers) {
            let path = shared.path(index).ok_or(NsmError::Busy);
            // Who went away misses nothing.
            let _ = answer.send(document.clone().and_then(|document| Ok((document, path?))));
        }
    }
}
