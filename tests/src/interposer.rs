//! Sits on a stream of bytes, counts them, and does one thing to it at one place: so that a test can go through all of them.
//!
//! Offsets count the bytes of one direction over all connections since the interposer was armed. What does not concern the
//! strike passes as it came.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use transport::{Endpoint, Limits, Stream};

const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at the same time.
const CONNECTIONS: usize = 16_384;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From whoever connected.
    Forth,
    /// To whoever connected.
    Back,
}

/// What is done to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends before the byte, both ways.
    Cut,
    /// The byte comes with one bit inverted.
    Garbled,
    /// The byte comes later than the one before it.
    Delayed(Duration),
    /// The byte never comes, nor does anything after it on this connection and in this direction.
    Stalled,
}

/// What is done, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// To which direction.
    pub direction: Direction,
    /// To which byte of it.
    pub offset: u64,
    /// What.
    pub fault: Fault,
}

/// Carries the connections of one endpoint to another; it ends when dropped.
pub struct Interposer {
    state: Arc<Mutex<State>>,
    endpoint: Endpoint,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct State {
    carried: [u64; 2],
    strike: Option<Strike>,
}

impl Interposer {
    /// Listens at `from`, and connects to `to` for each connection.
    pub async fn start(from: &Endpoint, to: Endpoint) -> Self {
        let listener = from.bind().await.expect("a free socket");
        let endpoint = listener.endpoint().clone();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let limits = Limits::new(CONNECTIONS, Duration::ZERO);
        let task = tokio::spawn(async move {
            let handler = move |near| carry(Arc::clone(&shared), near, to.clone());
            transport::serve(listener, limits, CancellationToken::new(), handler).await;
        });
        Self { state, endpoint, _task: AbortOnDropHandle::new(task) }
    }

    /// Where it listens.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Counts from zero, and does this when it is time.
    pub fn arm(&self, strike: Option<Strike>) {
        *self.state() = State { carried: [0; 2], strike };
    }

    /// Bytes that came since it was armed, in one direction.
    pub fn carried(&self, direction: Direction) -> u64 {
        self.state().carried[direction as usize]
    }

    /// Whether what it was armed with has been done.
    pub fn has_struck(&self) -> bool {
        self.state().strike.is_none()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }
}

async fn carry(state: Arc<Mutex<State>>, near: Stream, to: Endpoint) {
    let Ok(far) = to.connect(PATIENCE).await else { return };
    let ((from_near, to_near), (from_far, to_far)) = (split(near), split(far));
    let end = CancellationToken::new();
    let forth = pump(&state, Direction::Forth, from_near, to_far, &end);
    let back = pump(&state, Direction::Back, from_far, to_near, &end);
    tokio::select! {
        _ = async { tokio::join!(forth, back) } => {}
        () = end.cancelled() => {}
    }
}

/// Carries one direction to its end.
async fn pump(
    state: &Mutex<State>,
    direction: Direction,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    end: &CancellationToken,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(count) if count > 0 => count,
            Ok(_) => break,
            Err(_) => return end.cancel(),
        };
        let bytes = &mut buffer[..count];
        let strike = state.lock().expect("no test panics while it holds this").take_in(direction, count);
        let written = match strike {
            None => to.write_all(bytes).await,
            Some((at, Fault::Garbled)) => {
                bytes[at] ^= 1 << (at % 8);
                to.write_all(bytes).await
            }
            Some((at, Fault::Cut)) => {
                let _ = to.write_all(&bytes[..at]).await;
                return end.cancel();
            }
            Some((at, Fault::Delayed(time))) => {
                let first = to.write_all(&bytes[..at]).await;
                tokio::time::sleep(time).await;
                if first.is_err() { first } else { to.write_all(&bytes[at..]).await }
            }
            Some((at, Fault::Stalled)) => {
                let _ = to.write_all(&bytes[..at]).await;
                // Whoever sends is not told; it ends when the sender has enough.
                while from.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
                return end.cancel();
            }
        };
        if written.is_err() {
            return end.cancel();
        }
    }
    let _ = to.shutdown().await;
}

impl State {
    /// Counts bytes; gives what is to be done to which of them.
    fn take_in(&mut self, direction: Direction, count: usize) -> Option<(usize, Fault)> {
        let carried = &mut self.carried[direction as usize];
        let start = *carried;
        *carried += count as u64;
        let strike = self.strike.filter(|strike| strike.direction == direction)?;
        let at = usize::try_from(strike.offset.checked_sub(start)?).ok().filter(|at| *at < count)?;
        self.strike = None;
        Some((at, strike.fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an echo behind an interposer that was armed with this gives back.
    async fn echoed(direction: Direction, offset: u64, fault: Fault) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (near, far) = (Endpoint::Unix(dir.path().join("near")), Endpoint::Unix(dir.path().join("far")));
        let listener = far.bind().await.unwrap();
        let echo = tokio::spawn(async move {
            let (mut from, mut to) = split(listener.accept().await.unwrap());
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
        let interposer = Interposer::start(&near, far).await;
        interposer.arm(Some(Strike { direction, offset, fault }));
        let mut stream = near.connect(PATIENCE).await.unwrap();
        stream.write_all(b"0123456789").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        assert!(interposer.has_struck());
        echo.abort();
        bytes
    }

    #[tokio::test]
    async fn it_does_what_it_is_told_at_the_byte_that_it_is_told() {
        for direction in [Direction::Forth, Direction::Back] {
            assert_eq!(echoed(direction, 4, Fault::Garbled).await, b"0123$56789");
            assert_eq!(echoed(direction, 4, Fault::Delayed(Duration::from_millis(1))).await, b"0123456789");
            assert!(b"0123".starts_with(&echoed(direction, 4, Fault::Cut).await));
        }
        assert_eq!(echoed(Direction::Back, 4, Fault::Cut).await, b"0123");
        assert_eq!(echoed(Direction::Back, 4, Fault::Stalled).await, b"0123");
    }
}
