use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::{listener::Listener, stream::Stream};

/// Pauses after a failed accept: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// What an accept loop may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at the same time. Listeners that share them share the limit.
    pub slots: Arc<Slots>,
    /// How long connections may go on after shutdown began; then they are aborted.
    pub drain: Duration,
}

impl Limits {
    /// Slots of one's own.
    pub fn new(connections: usize, drain: Duration) -> Self {
        Self { slots: Arc::new(Slots::new(connections)), drain }
    }
}

/// What became of the connections of a [`serve`] loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Those among them that were aborted when the drain's time was up.
    pub aborted: usize,
}

/// Accepts connections and runs `handler` on each in a task of its own, until `shutdown`; then waits for them.
///
/// A connection runs only when a slot is free, and holds it until its handler's future ends; one connection a listener
/// waits for a slot, the others in the system's backlog. A handler that should end early at shutdown holds a clone of the token.
pub async fn serve<H, F>(listener: Listener, limits: Limits, shutdown: CancellationToken, handler: H) -> Drained
where
    H: Fn(Stream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut drained = Drained::default();
    let mut pause = BACKOFF.0;
    let mut waiting = None;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            slot = limits.slots.acquire(), if waiting.is_some() => if let Some(stream) = waiting.take() {
                drained.accepted += 1;
                let work = handler(stream);
                connections.spawn(async move {
                    work.await;
                    drop(slot);
                });
            },
            // While one waits for a slot the others wait in the backlog.
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok(stream) => {
                    pause = BACKOFF.0;
                    waiting = Some(stream);
                }
                // Out of descriptors or memory, or the peer is gone already. The pause keeps the loop from spinning.
                Err(error) => {
                    warn!(endpoint = %listener.endpoint(), %error, "accepting a connection failed");
                    tokio::select! {
                        () = shutdown.cancelled() => break,
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF.1),
                    }
                }
            },
        }
    }
    drop(listener);
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(limits.drain, all_ended).await.is_err() {
        drained.aborted = connections.len();
        debug!(aborted = drained.aborted, "the drain's time is up");
        connections.shutdown().await;
    }
    drained
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        error!("a connection's task panicked");
    }
}

/// A number of places that can change while they are taken.
#[derive(Debug)]
pub struct Slots {
    limit: AtomicUsize,
    used: AtomicUsize,
    freed: Notify,
}

/// A taken place; dropping it gives it back.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// `limit` free places.
    pub fn new(limit: usize) -> Self {
        Self { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0), freed: Notify::new() }
    }

    /// Waits for a free place. Dropping the future takes none.
    pub async fn acquire(self: &Arc<Self>) -> Slot {
        loop {
            let freed = self.freed.notified();
            if let Some(slot) = self.try_acquire() {
                return slot;
            }
            freed.await;
        }
    }

    /// A free place, if there is one.
    pub fn try_acquire(self: &Arc<Self>) -> Option<Slot> {
        let limit = self.limit.load(Ordering::SeqCst);
        let take = |used: usize| (used < limit).then_some(used + 1);
        let taken = self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
        taken.then(|| Slot(Arc::clone(self)))
    }

    /// Changes the limit. Where more places are taken than it allows, they stay taken until their holders are done.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::SeqCst);
        self.freed.notify_waiters();
    }

    /// Places taken now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::SeqCst);
        self.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::Endpoint;

    const SOON: Duration = Duration::from_secs(60);

    fn loopback() -> Endpoint {
        Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 }
    }

    async fn hold(mut stream: Stream) {
        let _ = stream.write_all(b"!").await;
        let _ = stream.read_u8().await;
    }

    #[tokio::test]
    async fn no_more_connections_run_than_there_are_slots_and_the_limit_can_be_raised() {
        let listener = loopback().bind().await.unwrap();
        let endpoint = listener.endpoint().clone();
        let (limits, shutdown) = (Limits::new(2, SOON), CancellationToken::new());
        let server = tokio::spawn(serve(listener, limits.clone(), shutdown.clone(), hold));
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(endpoint.connect(SOON).await.unwrap());
        }
        for stream in &mut streams[..2] {
            assert_eq!(stream.read_u8().await.unwrap(), b'!');
        }
        let third = tokio::time::timeout(Duration::from_millis(100), streams[2].read_u8()).await;
        assert!(third.is_err(), "the third is served beyond the limit");
        assert_eq!(limits.slots.used(), 2);
        limits.slots.set_limit(3);
        assert_eq!(streams[2].read_u8().await.unwrap(), b'!');
        drop(streams);
        shutdown.cancel();
        assert_eq!(server.await.unwrap(), Drained { accepted: 3, aborted: 0 });
        assert_eq!(limits.slots.used(), 0);
    }

    #[tokio::test]
    async fn shutdown_stops_accepting_waits_and_then_aborts() {
        let listener = loopback().bind().await.unwrap();
        let endpoint = listener.endpoint().clone();
        let (limits, shutdown) = (Limits::new(8, Duration::from_millis(100)), CancellationToken::new());
        let server = tokio::spawn(serve(listener, limits, shutdown.clone(), hold));
        let mut stays = endpoint.connect(SOON).await.unwrap();
        let mut leaves = endpoint.connect(SOON).await.unwrap();
        assert_eq!((stays.read_u8().await.unwrap(), leaves.read_u8().await.unwrap()), (b'!', b'!'));
        shutdown.cancel();
        drop(leaves);
        assert_eq!(server.await.unwrap(), Drained { accepted: 2, aborted: 1 });
        assert_eq!(stays.read(&mut [0]).await.unwrap_or(0), 0);
        assert!(endpoint.connect(SOON).await.is_err());
    }

    #[tokio::test]
    async fn a_handler_that_panics_takes_only_its_own_connection_down() {
        let listener = loopback().bind().await.unwrap();
        let endpoint = listener.endpoint().clone();
        let (limits, shutdown) = (Limits::new(1, SOON), CancellationToken::new());
        let handler = |mut stream: Stream| async move {
            assert_ne!(stream.read_u8().await.unwrap(), b'x', "told to panic");
            let _ = stream.write_all(b"!").await;
        };
        let server = tokio::spawn(serve(listener, limits, shutdown.clone(), handler));
        for (say, hear) in [(b'x', 0), (b'a', 1)] {
            let mut stream = endpoint.connect(SOON).await.unwrap();
            stream.write_all(&[say]).await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), hear);
        }
        shutdown.cancel();
        assert_eq!(server.await.unwrap().accepted, 2);
    }
}
