use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transcode_confidential::{
    cbor::CborError,
    protocol::host::{HostError, Reply, Request, VERSION, Welcome},
};
use transport::{FrameError, FrameReader, FrameWriter, Stream};

use super::{
    Host,
    fence::{Fenced, Held},
    staged::Staged,
};
use crate::store::{Batch, Ticket};

/// Requests of one session that are under way. Beyond them the session is not read.
const UNDER_WAY: usize = 64;
/// Replies are gathered up to this many bytes before they are written.
const GATHER: usize = 128 * 1024;

/// One connection of the host protocol.
pub(super) struct Session<'h> {
    host: &'h Arc<Host>,
    requests: FrameReader<ReadHalf<Stream>>,
    replies: FrameWriter<WriteHalf<Stream>>,
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    Closed,
    TakenOver,
    Shutdown,
    Fenced,
    TimedOut,
    Store,
    Malformed(Malformed),
    Failed(FrameError),
}

/// What no enclave of ours sends.
#[derive(Debug)]
pub(super) enum Malformed {
    Frame(FrameError),
    Request(CborError),
    FirstRequest,
    SecondHello,
    Version(u64),
}

/// A reply on its way out, with the place that its request takes.
struct Outgoing {
    id: u64,
    reply: Reply,
    _place: OwnedSemaphorePermit,
}

impl<'h> Session<'h> {
    pub(super) fn new(host: &'h Arc<Host>, stream: Stream) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            host,
            requests: FrameReader::new(reader, host.frame_timeout),
            replies: FrameWriter::new(writer, host.frame_timeout),
        }
    }

    /// Greets, answers, and says how it ended.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Ended {
        let held = tokio::select! {
            greeted = self.greet() => match greeted {
                Ok(held) => held,
                Err(ended) => return ended,
            },
            () = shutdown.cancelled() => return Ended::Shutdown,
        };
        self.host.metrics.host_sessions_total.increment();
        let _alive = self.host.metrics.host_session_alive.hold();
        info!("an enclave session is alive");
        self.answer(held, shutdown).await
    }

    /// `Hello` and `Welcome`.
    async fn greet(&mut self) -> Result<Held, Ended> {
        let first = timeout(self.host.session_timeout, self.requests.next()).await.map_err(|_| Ended::TimedOut)?;
        let (id, request) = decode(first)?.ok_or(Ended::Closed)?;
        let Request::Hello { version, session } = request else {
            self.refuse(id, HostError::Refused).await?;
            return Err(Ended::Malformed(Malformed::FirstRequest));
        };
        if version != VERSION {
            self.refuse(id, HostError::Version).await?;
            return Err(Ended::Malformed(Malformed::Version(version)));
        }
        let held = match self.host.fence.claim(session).await {
            Ok(held) => held,
            Err(Fenced) => {
                self.refuse(id, HostError::Fenced).await?;
                return Err(Ended::Fenced);
            }
        };
        // What was asked of an enclave before is not asked of its successor.
        self.host.stop_wanted.store(false, Ordering::Release);
        // Everything that an earlier connection handed in is stored before this looks how far the log is.
        match self.host.store.with(|store| store.durable()).await {
            Ok(durable) => {
                let parent = concat!("parent-proxy ", env!("CARGO_PKG_VERSION")).to_owned();
                let welcome = Reply::Welcome(Welcome { version: VERSION, parent, durable });
                if let Some(policy) = &self.host.policy {
                    policy.forget_offers();
                }
                self.replies.send(&welcome.encode(id)).await?;
                Ok(held)
            }
            Err(reason) => {
                self.refuse(id, reason).await?;
                Err(Ended::Store)
            }
        }
    }

    async fn refuse(&mut self, id: u64, reason: HostError) -> Result<(), FrameError> {
        self.replies.send(&Reply::Failed(reason).encode(id)).await
    }

    /// Answers requests until the session ends. Its right is given up only when nothing of it is under way any more.
    async fn answer(self, held: Held, shutdown: CancellationToken) -> Ended {
        let Self { host, mut requests, replies } = self;
        let places = Arc::new(Semaphore::new(UNDER_WAY));
        let (outgoing, incoming) = mpsc::channel(UNDER_WAY);
        let (tickets, waiting) = mpsc::channel(UNDER_WAY);
        let mut work = JoinSet::new();
        work.spawn(in_order(waiting, outgoing.clone()));
        let mut writing = tokio::spawn(write(replies, incoming));
        let mut staged = Staged::default();
        let ended = loop {
            let place = tokio::select! {
                biased;
                () = held.end.cancelled() => break Ended::TakenOver,
                () = shutdown.cancelled() => break Ended::Shutdown,
                written = &mut writing => break written.map_or(Ended::Closed, Ended::from),
                Some(_) = work.join_next() => continue,
                Ok(place) = Arc::clone(&places).acquire_owned() => place,
            };
            let frame = tokio::select! {
                biased;
                () = held.end.cancelled() => break Ended::TakenOver,
                () = shutdown.cancelled() => break Ended::Shutdown,
                written = &mut writing => break written.map_or(Ended::Closed, Ended::from),
                frame = timeout(host.session_timeout, requests.next()) => frame,
            };
            let (id, request) = match frame.map_err(|_| Ended::TimedOut).and_then(decode) {
                Ok(Some(request)) => request,
                Ok(None) => break Ended::Closed,
                Err(ended) => break ended,
            };
            let reply = |reply| Outgoing { id, reply, _place: place };
            match request {
                Request::Hello { .. } => {
                    let _ = outgoing.send(reply(Reply::Failed(HostError::Refused))).await;
                    break Ended::Malformed(Malformed::SecondHello);
                }
                Request::Stage(records) => {
                    let done = staged.add(&records).map_or_else(Reply::Failed, |()| Reply::Done);
                    let _ = outgoing.send(reply(done)).await;
                }
                Request::Append(append) => {
                    let append = staged.before(append);
                    let ticket = match Batch::new(append) {
                        Ok(batch) => host.store.append(batch).await,
                        Err(reason) => Err(reason),
                    };
                    let _ = tickets.send((ticket, reply(Reply::Done))).await;
                }
                other => {
                    let (host, outgoing) = (Arc::clone(host), outgoing.clone());
                    let out = reply(Reply::Done);
                    work.spawn(async move {
                        let reply = host.reply_to(other).await.unwrap_or_else(Reply::Failed);
                        let _ = outgoing.send(Outgoing { reply, ..out }).await;
                    });
                }
            }
        };
        drop((tickets, outgoing));
        if matches!(ended, Ended::Shutdown | Ended::Malformed(_)) {
            // What is under way is answered; the other end decides whether it still listens.
            let all = async {
                while work.join_next().await.is_some() {}
                let _ = (&mut writing).await;
            };
            let _ = timeout(host.frame_timeout, all).await;
        }
        writing.abort();
        work.shutdown().await;
        drop(held);
        ended
    }
}

impl Host {
    /// Everything but `Hello`, `Stage` and `Append`, which have an order.
    async fn reply_to(&self, request: Request) -> Result<Reply, HostError> {
        Ok(match request {
            Request::Segments { after } => Reply::Segments(self.store.with(move |store| store.segments(after)).await?),
            Request::Read { name, offset, length } => {
                Reply::Bytes(self.store.with(move |store| store.read(name, offset, length)).await?)
            }
            Request::Quarantine { name, offset } => {
                self.store.with(move |store| store.quarantine(name, offset)).await?;
                Reply::Done
            }
            Request::Restoration => Reply::Policy(match &self.policy {
                Some(policy) => policy.restoration().await,
                None => None,
            }),
            Request::Prune { below } => {
                self.store.with(move |store| store.prune(below)).await?;
                Reply::Done
            }
            Request::Snapshot => Reply::Start(self.store.with(|store| store.snapshot()).await?),
            Request::Inclusion { index, size } => {
                Reply::Proof(self.store.with(move |store| store.inclusion(index, size)).await?)
            }
            Request::Consistency { old, new } => {
                Reply::Proof(self.store.with(move |store| store.consistency(old, new)).await?)
            }
            Request::Credentials => {
                let found = match &self.credentials {
                    Some(credentials) => credentials.current().await,
                    None => None,
                };
                let counter = match found {
                    Some(_) => &self.metrics.credentials_served_total,
                    None => &self.metrics.credentials_failed_total,
                };
                counter.increment();
                Reply::Credentials(found.ok_or(HostError::NoCredentials)?)
            }
            Request::Policy { after } => {
                let policy = match &self.policy {
                    Some(policy) => policy.newer_than(after).await,
                    None => None,
                };
                self.metrics.policy_served_total.add(u64::from(policy.is_some()));
                Reply::Policy(policy)
            }
            Request::Ping if self.stop_wanted.swap(false, Ordering::AcqRel) => Reply::Stop,
            Request::Ping => Reply::Done,
            Request::Metrics(report) => match self.figures.take(&report) {
                Ok(()) => {
                    self.metrics.enclave_reports_total.increment();
                    Reply::Done
                }
                Err(error) => {
                    self.metrics.enclave_reports_refused_total.increment();
                    if self.complaints.now() {
                        warn!(%error, "the enclave's figures cannot be read");
                    }
                    return Err(HostError::Refused);
                }
            },
            _ => return Err(HostError::Refused),
        })
    }

    /// Whether an enclave has a session.
    pub(crate) fn has_session(&self) -> bool {
        self.fence.is_alive()
    }
}

/// Hands on the answers to batches in the order of the batches.
async fn in_order(
    mut waiting: mpsc::Receiver<(Result<Ticket, HostError>, Outgoing)>,
    outgoing: mpsc::Sender<Outgoing>,
) {
    while let Some((ticket, out)) = waiting.recv().await {
        let result = match ticket {
            Ok(ticket) => ticket.await.unwrap_or(Err(HostError::StorageFailed)),
            Err(reason) => Err(reason),
        };
        let reply = result.map_or_else(Reply::Failed, Reply::Appended);
        if outgoing.send(Outgoing { reply, ..out }).await.is_err() {
            return;
        }
    }
}

/// Writes replies, several at once where several wait.
async fn write(
    mut replies: FrameWriter<WriteHalf<Stream>>,
    mut incoming: mpsc::Receiver<Outgoing>,
) -> Result<(), FrameError> {
    while let Some(first) = incoming.recv().await {
        let mut places = Vec::new();
        let mut next = Some(first);
        while let Some(Outgoing { id, reply, _place }) = next {
            replies.queue(&reply.encode(id))?;
            places.push(_place);
            next = if replies.queued() < GATHER { incoming.try_recv().ok() } else { None };
        }
        replies.flush().await?;
    }
    Ok(())
}

fn decode(frame: Result<Option<Bytes>, FrameError>) -> Result<Option<(u64, Request)>, Ended> {
    match frame {
        Ok(Some(bytes)) => {
            Request::decode(&bytes).map(Some).map_err(|error| Ended::Malformed(Malformed::Request(error)))
        }
        Ok(None) => Ok(None),
        Err(FrameError::Io(error)) => Err(Ended::Failed(FrameError::Io(error))),
        Err(error) => Err(Ended::Malformed(Malformed::Frame(error))),
    }
}

impl From<FrameError> for Ended {
    fn from(error: FrameError) -> Self {
        Self::Failed(error)
    }
}

impl From<Result<(), FrameError>> for Ended {
    fn from(written: Result<(), FrameError>) -> Self {
        written.map_or_else(Self::Failed, |()| Self::Closed)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the peer"),
            Self::TakenOver => f.write_str("taken over by a newer connection of the same session"),
            Self::Shutdown => f.write_str("the proxy shuts down"),
            Self::Fenced => f.write_str("another session is alive"),
            Self::TimedOut => f.write_str("no frame came in time"),
            Self::Store => f.write_str("the store cannot be opened"),
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => error.fmt(f),
            Self::Request(error) => write!(f, "malformed request: {error}"),
            Self::FirstRequest => f.write_str("the first request was not Hello"),
            Self::SecondHello => f.write_str("a second Hello"),
            Self::Version(version) => write!(f, "protocol version {version} is not spoken here"),
        }
    }
}
