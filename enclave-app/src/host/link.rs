use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::{ReadHalf, WriteHalf, split},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    cbor::CborError,
    protocol::host::{HostError, Reply, Request, VERSION, Welcome},
};
use transport::{ConnectError, Endpoint, FrameError, FrameReader, FrameWriter, Stream};

/// How long the parent may take for a frame, once it has begun.
const FRAME_PATIENCE: Duration = Duration::from_secs(10);
/// How long the parent may take to answer anything.
const REPLY_PATIENCE: Duration = Duration::from_secs(20);
/// How often the enclave shows that it is alive.
const PING_EVERY: Duration = Duration::from_secs(3);
/// Requests that may wait to be written.
const QUEUE: usize = 64;

/// Why the parent did not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostFailure {
    /// It cannot be reached.
    #[error("the parent cannot be reached: {0}")]
    Unreachable(#[from] ConnectError),
    /// The connection broke.
    #[error("the connection to the parent broke: {0}")]
    Broken(#[from] FrameError),
    /// The connection ended.
    #[error("the connection to the parent ended")]
    Ended,
    /// It did not answer in time.
    #[error("the parent did not answer in time")]
    TimedOut,
    /// It answered with something that is no answer.
    #[error("the parent's answer is malformed: {0}")]
    Malformed(#[from] CborError),
    /// It answered another question.
    #[error("the parent's answer does not fit the request")]
    Unexpected,
    /// It refused.
    #[error(transparent)]
    Refused(#[from] HostError),
}

/// One connection to the parent.
pub struct HostLink {
    requests: mpsc::Sender<Asked>,
    closed: CancellationToken,
}

/// A request, and whoever waits for the answer.
type Asked = (Arc<Request>, oneshot::Sender<Reply>);
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Reply>>>>;

impl HostLink {
    /// Connects and opens the session. `stop` is cancelled when the parent asks the enclave to end.
    ///
    /// # Errors
    /// [`HostFailure`]; `Refused(Fenced)` where another session is alive.
    pub async fn open(
        endpoint: &Endpoint,
        session: [u8; 16],
        timeout: Duration,
        stop: &CancellationToken,
    ) -> Result<(Self, Welcome), HostFailure> {
        let stream = endpoint.connect(timeout).await?;
        let link = Self::over(stream, stop.clone());
        let hello = Request::Hello { version: VERSION, session };
        match link.call(hello).await? {
            Reply::Welcome(welcome) if welcome.version == VERSION => Ok((link, welcome)),
            Reply::Welcome(_) => Err(HostError::Version.into()),
            _ => Err(HostFailure::Unexpected),
        }
    }

    fn over(stream: Stream, stop: CancellationToken) -> Self {
        let (reader, writer) = split(stream);
        let (requests, queue) = mpsc::channel(QUEUE);
        let closed = CancellationToken::new();
        let waiting = Waiting::default();
        tokio::spawn(write(FrameWriter::new(writer, FRAME_PATIENCE), queue, Arc::clone(&waiting), closed.clone()));
        tokio::spawn(read(FrameReader::new(reader, FRAME_PATIENCE), waiting, closed.clone(), stop));
        Self { requests, closed }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`HostFailure`].
    pub async fn call(&self, request: Request) -> Result<Reply, HostFailure> {
        let answer = self.send(request).await?;
        match tokio::time::timeout(REPLY_PATIENCE, answer).await {
            Ok(Ok(Reply::Failed(error))) => Err(error.into()),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(HostFailure::Ended),
            Err(_) => {
                // A parent that owes an answer this long is of no use for anything else either.
                self.closed.cancel();
                Err(HostFailure::TimedOut)
            }
        }
    }

    /// Asks; the answer comes later. Requests are written in the order of these calls. Whoever may have to ask the same again
    /// shares the request.
    ///
    /// # Errors
    /// [`HostFailure::Ended`].
    pub async fn send(&self, request: impl Into<Arc<Request>>) -> Result<oneshot::Receiver<Reply>, HostFailure> {
        let (answer, receiver) = oneshot::channel();
        self.requests.send((request.into(), answer)).await.map_err(|_| HostFailure::Ended)?;
        Ok(receiver)
    }

    /// Ends when the connection does.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }
}

impl Drop for HostLink {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

async fn write(
    mut writer: FrameWriter<WriteHalf<Stream>>,
    mut queue: mpsc::Receiver<Asked>,
    waiting: Waiting,
    closed: CancellationToken,
) {
    let mut next_id = 0_u64;
    // Also while other requests go by: the answer to a ping is where the parent asks us to stop.
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let result: Result<(), FrameError> = async {
        loop {
            let (request, answer) = tokio::select! {
                () = closed.cancelled() => return Ok(()),
                request = queue.recv() => match request {
                    Some(request) => request,
                    None => return Ok(()),
                },
                _ = ping.tick() => (Request::Ping.into(), expect_answer(&closed)),
            };
            next_id += 1;
            waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(next_id, answer);
            writer.send(&request.encode(next_id)).await?;
        }
    }
    .await;
    if let Err(error) = result {
        tracing::warn!(%error, "writing to the parent failed");
    }
    closed.cancel();
    // Whoever still waits learns that the connection has ended.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Ends the connection unless an answer comes.
fn expect_answer(closed: &CancellationToken) -> oneshot::Sender<Reply> {
    let (answer, receiver) = oneshot::channel();
    let closed = closed.clone();
    tokio::spawn(async move {
        if !matches!(tokio::time::timeout(REPLY_PATIENCE, receiver).await, Ok(Ok(_))) {
            closed.cancel();
        }
    });
    answer
}

async fn read(
    mut reader: FrameReader<ReadHalf<Stream>>,
    waiting: Waiting,
    closed: CancellationToken,
    stop: CancellationToken,
) {
    let result: Result<(), HostFailure> = async {
        loop {
            let frame = tokio::select! {
                () = closed.cancelled() => return Ok(()),
                frame = reader.next() => frame?,
            };
            let Some(frame) = frame else { return Ok(()) };
            let (id, reply) = Reply::decode(&frame)?;
            if reply == Reply::Stop {
                tracing::info!("the parent asks the enclave to stop");
                stop.cancel();
            }
            let answer = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            // A reply that nobody waits for any more came after its caller gave up; one that was never asked for is a lie.
            let _ = answer.ok_or(HostFailure::Unexpected)?.send(reply);
        }
    }
    .await;
    if let Err(error) = result {
        tracing::warn!(%error, "the parent's answers are of no use");
    }
    closed.cancel();
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
