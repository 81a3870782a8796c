//! Connections of clients that are lost while a request is under way: what is sent again, and what is not.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use client::{
    Client, ClientError,
    log_memory::LogMemory,
    session::{Session, SessionError},
};
use testkit::world::{World, key_id};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};
use transcode_confidential::{
    audit::{EventBody, KeyOperation},
    ids::KeyVersion,
    message::EncryptionContext,
    protocol::api::IssueDataKeys,
};
use transport::Endpoint;

const KEY: &str = "content-key-1";

/// Stands between a client and the server, and breaks one connection when the server next says something: whatever it says
/// is lost, and was said because the request was carried out.
struct Cutter {
    armed: Arc<AtomicBool>,
    cuts: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Cutter {
    fn start(at: &Path, server: Endpoint) -> Self {
        let listener = UnixListener::bind(at).unwrap();
        let (armed, cuts, connections) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let state = (Arc::clone(&armed), Arc::clone(&cuts), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                state.2.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(relay(client, server.clone(), Arc::clone(&state.0), Arc::clone(&state.1)));
            }
        });
        Self { armed, cuts, connections, task }
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: UnixStream, server: Endpoint, armed: Arc<AtomicBool>, cuts: Arc<AtomicUsize>) {
    let Endpoint::Unix(path) = server else { panic!("servers of a world listen on Unix sockets") };
    let server = UnixStream::connect(path).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
    };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from_server.read(&mut buffer).await {
                Ok(length) if length > 0 => {
                    if armed.swap(false, Ordering::SeqCst) {
                        cuts.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    if to_client.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    tokio::select! {
        () = async { up.await; std::future::pending().await } => {}
        () = down => {}
    }
}

/// A client of the operator behind a cutter, with an idle connection that its next request goes over.
async fn behind(world: &World) -> (Client, Cutter, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("cutter.sock");
    let cutter = Cutter::start(&at, world.server());
    let settings = world.operator().client.session().settings().clone();
    let memory = LogMemory::new(dir.path().join("memory"));
    let client = Client::new(Session::new(Endpoint::Unix(at), settings), memory, None);
    client.list_keys().await.unwrap();
    (client, cutter, dir)
}

async fn world() -> World {
    let world = World::start().await;
    world.operator().generate(KEY).await.unwrap();
    world
}

fn wanted(count: u32) -> IssueDataKeys {
    IssueDataKeys { count: Some(count), ..IssueDataKeys::default() }
}

fn is_lost<T>(result: Result<T, ClientError>) -> bool {
    matches!(result.err(), Some(ClientError::Session(SessionError::Lost(_))))
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_asked_for_again_and_done_once() {
    let world = world().await;
    let (client, cutter, _dir) = behind(&world).await;
    let connections = cutter.connections();
    cutter.arm();
    // Of this version: done a second time it would be refused.
    let rotated = client.rotate_key(&key_id(KEY), Some(KeyVersion(1))).await.unwrap();
    assert_eq!((cutter.cuts(), cutter.connections()), (1, connections + 1), "sent twice");
    assert_eq!(rotated.key.active_version, Some(KeyVersion(2)));
    world.acknowledged.keep(rotated.receipt.0);
    assert_eq!(world.check().intact().key(KEY).versions.len(), 2);
}

#[tokio::test]
async fn a_request_for_data_keys_whose_answer_is_lost_fails_and_was_carried_out_once() {
    let world = world().await;
    let (client, cutter, _dir) = behind(&world).await;
    let issued = client.issue_data_keys(&key_id(KEY), &wanted(1)).await.unwrap().remove(0);
    cutter.arm();
    assert!(is_lost(client.issue_data_keys(&key_id(KEY), &wanted(3)).await));
    assert_eq!(cutter.cuts(), 1);
    // The connection that was lost was the only one.
    client.list_keys().await.unwrap();
    cutter.arm();
    let item = (issued.data_key.wrapped().clone(), EncryptionContext::new());
    assert!(is_lost(client.unwrap_data_keys(vec![item], None).await));
    assert_eq!(cutter.cuts(), 2);
    let checked = world.check().intact();
    assert_eq!(checked.uses(KEY, 1), 4, "one, and three of which the client knows nothing");
    let unwrapped = checked
        .of_type(transcode_confidential::audit::AuditEventType::KeyUsed)
        .into_iter()
        .filter(|event| matches!(event.body, Some(EventBody::KeyUsed { operation: KeyOperation::UnwrapDataKey, .. })));
    assert_eq!(unwrapped.count(), 1);
}

#[tokio::test]
async fn a_request_for_data_keys_that_was_never_sent_goes_over_another_connection() {
    let world = world().await;
    let (client, cutter, _dir) = behind(&world).await;
    // Its next request needs a new connection, which is lost as it is being made.
    drop(client.session().connection().await.unwrap());
    cutter.arm();
    assert_eq!(client.issue_data_keys(&key_id(KEY), &wanted(2)).await.unwrap().len(), 2);
    assert_eq!(cutter.cuts(), 1);
    assert_eq!(world.check().intact().uses(KEY, 1), 2);
}
