//! A parent that does as it is told, also what no honest parent does: the enclave trusts a parent for availability only, and
//! tests find out what that means.
//!
//! It speaks the host protocol over a unix socket, keeps the log in memory in the form that lies on disk, and carries bytes
//! to the mock KMS. It has no relay: clients reach the enclave directly.

mod log;
mod script;
mod session;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use enclave_app::kms::dial::{EGRESS_CONNECTED, EGRESS_UNREACHABLE};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use transcode_confidential::protocol::host::{Credentials, Reply, Request};
use transport::{Endpoint, Limits, Stream};

use crate::segments::Segments;
pub use log::MemoryLog;
pub use script::{Appends, Cut, CutWhen, Egress, Lie, Script};

/// A running parent; it ends when dropped.
pub struct ScriptedParent {
    shared: Arc<Shared>,
    host: Endpoint,
    egress: Endpoint,
    _tasks: [AbortOnDropHandle<()>; 2],
}

struct Shared {
    script: watch::Sender<Script>,
    log: Mutex<MemoryLog>,
    policy: Mutex<Option<Vec<u8>>>,
    restoration: Mutex<Option<Vec<u8>>>,
    credentials: Credentials,
    kms: SocketAddr,
    /// The session that is alive, and what ends its connection.
    live: Mutex<Option<([u8; 16], CancellationToken)>>,
    requests: Mutex<Vec<&'static str>>,
    /// Bytes of segments that were handed out.
    sent: AtomicU64,
    /// Which kind of request is answered how, and how often.
    lies: Mutex<Option<(&'static str, Lie, u32)>>,
}

impl ScriptedParent {
    /// Listens in `dir`. Offers these credentials, and carries bytes to this KMS whatever host is asked for.
    pub async fn start(dir: &Path, credentials: Credentials, kms: SocketAddr) -> Self {
        let host = Endpoint::Unix(dir.join("host.sock"));
        let egress = Endpoint::Unix(dir.join("egress.sock"));
        let shared = Arc::new(Shared {
            script: watch::Sender::new(Script::default()),
            log: Mutex::default(),
            policy: Mutex::default(),
            restoration: Mutex::default(),
            credentials,
            kms,
            live: Mutex::default(),
            requests: Mutex::default(),
            sent: AtomicU64::default(),
            lies: Mutex::default(),
        });
        let tasks = [
            listen(&host, Arc::clone(&shared), session::serve).await,
            listen(&egress, Arc::clone(&shared), carry).await,
        ];
        Self { shared, host, egress, _tasks: tasks }
    }

    /// Where the host protocol is spoken.
    pub const fn host(&self) -> &Endpoint {
        &self.host
    }

    /// The way to KMS.
    pub const fn egress(&self) -> &Endpoint {
        &self.egress
    }

    /// Changes how it behaves.
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        self.shared.script.send_modify(change);
    }

    /// Answers the next requests of a kind with a lie.
    pub fn lie(&self, kind: &'static str, lie: Lie, times: u32) {
        *self.shared.lies.lock().expect("no test panics while it holds this") = Some((kind, lie, times));
    }

    /// Breaks the connection of the session that is alive.
    pub fn disconnect(&self) {
        if let Some((_, end)) = &*self.shared.live.lock().expect("no test panics while it holds this") {
            end.cancel();
        }
    }

    /// Offers this policy document, whatever version the enclave has.
    pub fn offer_policy(&self, document: Option<Vec<u8>>) {
        *self.shared.policy.lock().expect("no test panics while it holds this") = document;
    }

    /// Offers this restore document.
    pub fn offer_restoration(&self, document: Option<Vec<u8>>) {
        *self.shared.restoration.lock().expect("no test panics while it holds this") = document;
    }

    /// The log as it is now.
    pub fn segments(&self) -> Segments {
        self.shared.log().segments().clone()
    }

    /// Changes the log behind everybody's back.
    pub fn edit(&self, change: impl FnOnce(&mut Segments)) {
        self.shared.log().edit(change);
    }

    /// Bytes of segments that were handed out so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// The kinds of all requests so far.
    pub fn requests(&self) -> Vec<&'static str> {
        self.shared.requests.lock().expect("no test panics while it holds this").clone()
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, MemoryLog> {
        self.log.lock().expect("no test panics while it holds this")
    }

    fn policy(&self) -> Option<Vec<u8>> {
        self.policy.lock().expect("no test panics while it holds this").clone()
    }

    fn restoration(&self) -> Option<Vec<u8>> {
        self.restoration.lock().expect("no test panics while it holds this").clone()
    }

    /// The frames that answer a request of that kind.
    fn frames(&self, kind: &str, id: u64, reply: Reply) -> Vec<Vec<u8>> {
        if let Reply::Bytes(bytes) = &reply {
            self.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        }
        let mut lies = self.lies.lock().expect("no test panics while it holds this");
        match &mut *lies {
            Some((about, lie, times)) if *about == kind && *times > 0 => {
                *times -= 1;
                lie.frames(id, reply)
            }
            _ => vec![reply.encode(id)],
        }
    }

    /// Counts a request; tells whether its connection is to be cut, and when.
    fn count(&self, request: &Request) -> Option<CutWhen> {
        let kind = kind(request);
        let number = {
            let mut requests = self.requests.lock().expect("no test panics while it holds this");
            requests.push(kind);
            requests.iter().filter(|other| **other == kind).count()
        };
        let cut = self.script.borrow().cut.filter(|cut| (cut.kind, cut.number) == (kind, number));
        cut.map(|cut| cut.when)
    }
}

const fn kind(request: &Request) -> &'static str {
    match request {
        Request::Hello { .. } => "hello",
        Request::Segments { .. } => "segments",
        Request::Read { .. } => "read",
        Request::Quarantine { .. } => "quarantine",
        Request::Append(_) => "append",
        Request::Credentials => "credentials",
        Request::Policy { .. } => "policy",
        Request::Inclusion { .. } => "inclusion",
        Request::Consistency { .. } => "consistency",
        Request::Ping => "ping",
        Request::Metrics(_) => "metrics",
        Request::Stage(_) => "stage",
        Request::Snapshot => "snapshot",
        Request::Prune { .. } => "prune",
        Request::Restoration => "restoration",
        _ => "other",
    }
}

async fn listen<F, H>(endpoint: &Endpoint, shared: Arc<Shared>, handler: H) -> AbortOnDropHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
    H: Fn(Arc<Shared>, Stream) -> F + Send + 'static,
{
    let listener = endpoint.bind().await.expect("a free socket");
    let limits = Limits::new(256, Duration::from_millis(100));
    AbortOnDropHandle::new(tokio::spawn(async move {
        let handler = move |stream| handler(Arc::clone(&shared), stream);
        transport::serve(listener, limits, CancellationToken::new(), handler).await;
    }))
}

/// The egress: reads where to, and goes to KMS.
async fn carry(shared: Arc<Shared>, mut stream: Stream) {
    let Ok(length) = stream.read_u16().await else { return };
    let mut target = vec![0; usize::from(length)];
    if stream.read_exact(&mut target).await.is_err() {
        return;
    }
    let open = shared.script.borrow().egress == Egress::Open;
    let kms = if open { TcpStream::connect(shared.kms).await.ok() } else { None };
    let answer = if kms.is_some() { EGRESS_CONNECTED } else { EGRESS_UNREACHABLE };
    if stream.write_all(&[answer]).await.is_ok()
        && let Some(mut kms) = kms
    {
        let _ = copy_bidirectional(&mut stream, &mut kms).await;
    }
}
