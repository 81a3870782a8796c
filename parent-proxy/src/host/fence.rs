use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Lets one session live at a time.
#[derive(Debug, Default)]
pub(super) struct Fence(Arc<Mutex<Option<Live>>>);

#[derive(Debug)]
struct Live {
    session: [u8; 16],
    /// Tells the connection to end.
    end: CancellationToken,
    /// Says that it has.
    ended: CancellationToken,
}

/// The right to be the live session; dropping it gives it up.
#[derive(Debug)]
pub(super) struct Held {
    fence: Arc<Mutex<Option<Live>>>,
    /// Somebody takes the session over.
    pub(super) end: CancellationToken,
    ended: CancellationToken,
}

/// Another session is alive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fenced;

impl Fence {
    /// Becomes the live session. A connection of the same session is told to end, and has ended when this returns.
    pub(super) async fn claim(&self, session: [u8; 16]) -> Result<Held, Fenced> {
        loop {
            let ended = match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(live) if live.session != session => return Err(Fenced),
                Some(live) => {
                    live.end.cancel();
                    Some(live.ended.clone())
                }
                None => None,
            };
            if let Some(ended) = ended {
                ended.cancelled().await;
            } else if let Some(held) = self.take(session) {
                return Ok(held);
            }
        }
    }

    /// Whether a session is alive.
    pub(super) fn is_alive(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn take(&self, session: [u8; 16]) -> Option<Held> {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if live.is_some() {
            return None;
        }
        let (end, ended) = (CancellationToken::new(), CancellationToken::new());
        *live = Some(Live { session, end: end.clone(), ended: ended.clone() });
        Some(Held { fence: Arc::clone(&self.0), end, ended })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.fence.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 16] = [1; 16];
    const B: [u8; 16] = [2; 16];

    #[tokio::test]
    async fn a_second_session_waits_for_the_end_of_the_first() {
        let fence = Fence::default();
        let first = fence.claim(A).await.unwrap();
        assert_eq!(fence.claim(B).await.unwrap_err(), Fenced);
        drop(first);
        assert!(!fence.is_alive());
        let _second = fence.claim(B).await.unwrap();
        assert_eq!(fence.claim(A).await.unwrap_err(), Fenced);
    }

    #[tokio::test]
    async fn the_same_session_comes_in_when_its_old_connection_has_ended_and_not_before() {
        let fence = Arc::new(Fence::default());
        let first = fence.claim(A).await.unwrap();
        let again = tokio::spawn({
            let fence = Arc::clone(&fence);
            async move { fence.claim(A).await }
        });
        first.end.cancelled().await;
        tokio::task::yield_now().await;
        assert!(!again.is_finished());
        drop(first);
        assert!(again.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn of_many_claims_of_one_session_one_holds_at_a_time() {
        let fence = Arc::new(Fence::default());
        let holders = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let claims = (0..50).map(|_| {
            let (fence, holders) = (Arc::clone(&fence), Arc::clone(&holders));
            tokio::spawn(async move {
                let held = fence.claim(A).await.unwrap();
                assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                drop(held);
            })
        });
        for claim in claims.collect::<Vec<_>>() {
            claim.await.unwrap();
        }
    }
}
