//! A server that says what a test wants: TLS and documents are real, the log is a list, and everything can be a lie.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use client::{
    Client,
    log_memory::LogMemory,
    session::{Identity, Session, Settings},
};
use enclave_app::nsm::{AttestationRequest, Nsm as _};
use futures_util::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use testkit::nsm::{MockHypervisor, MockImage, MockNsm, Mode};
use tokio_rustls::TlsAcceptor;
use transcode_confidential::{
    attestation::{ImagePolicy, UserData},
    audit::{
        LogState, Receipt, Seal,
        checkpoint::Checkpoint,
        leaf_hash,
        tree::{EMPTY_ROOT, consistency_proof, inclusion_proof, root_of},
    },
    ids::{Epoch, KeyVersion, LeafHash, LogId, RootHash, Sequence},
    keys::{KeyRotationPolicy, KeyState, RotationNeed},
    protocol::api::{
        self, ApiError, CheckpointReply, ConsistencyReply, ErrorCode, KeyChanged, KeyInfo, KeyList, ReceiptText,
    },
    secret::KeyMaterial,
    signature::SigningKey,
    time::SystemClock,
};
use transport::{Endpoint, Listener};

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The world around the servers of a test: one hypervisor, one client CA, one place for sockets and memory.
pub(crate) struct World {
    pub(crate) hypervisor: MockHypervisor,
    pub(crate) image: MockImage,
    pub(crate) ca: Issuer<'static, KeyPair>,
    ca_der: CertificateDer<'static>,
    pub(crate) dir: tempfile::TempDir,
    servers: AtomicUsize,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "client CA");
        let key = KeyPair::generate().unwrap();
        let ca_der = params.self_signed(&key).unwrap().der().clone();
        Self {
            hypervisor: MockHypervisor::new(Arc::new(SystemClock)),
            image: MockImage::named("enclave"),
            ca: Issuer::new(params, key),
            ca_der,
            dir: tempfile::tempdir().unwrap(),
            servers: AtomicUsize::new(0),
        }
    }

    /// The one address that the tests' servers take turns at.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.socket())
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("server.sock")
    }

    pub(crate) fn settings(&self) -> Settings {
        let image = ImagePolicy::Expect(self.image.measurements("1.0"));
        Settings::new(self.hypervisor.trust_root(), image, Some(identity(&self.ca, "transcoder-1")))
    }

    pub(crate) fn session(&self) -> Session {
        Session::new(self.endpoint(), self.settings())
    }

    pub(crate) fn memory(&self) -> LogMemory {
        LogMemory::new(self.dir.path().join("state"))
    }

    pub(crate) fn client(&self) -> Client {
        self.client_accepting(None)
    }

    pub(crate) fn client_accepting(&self, log: Option<LogId>) -> Client {
        Client::new(self.session(), self.memory(), log)
    }

    pub(crate) fn launch(&self) -> Arc<MockNsm> {
        self.hypervisor.launch(&self.image)
    }

    pub(crate) fn launch_debug(&self) -> Arc<MockNsm> {
        self.hypervisor.launch_in(Mode::Debug, &self.image)
    }
}

/// A client certificate by an authority.
pub(crate) fn identity(ca: &Issuer<'static, KeyPair>, name: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, ca).unwrap();
    Identity::from_pem(format!("{}{}", certificate.pem(), key.serialize_pem()).as_bytes()).unwrap()
}

/// A TLS key with a certificate of its own.
pub(crate) struct ChannelKey {
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl ChannelKey {
    pub(crate) fn generate() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap().der().clone();
        Self { key, certificate }
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(&self.key)
    }

    /// The certificate of one key, presented by somebody who holds another.
    pub(crate) fn stolen_by(&self, thief: &Self) -> Self {
        let key = KeyPair::from_pem(&thief.key.serialize_pem()).unwrap();
        Self { key, certificate: self.certificate.clone() }
    }
}

/// A log as a list of leaf hashes, and the keys that sign for it.
#[derive(Clone)]
pub(crate) struct FakeLog {
    pub(crate) log_id: LogId,
    pub(crate) epoch: Epoch,
    log_seed: u8,
    epoch_seed: u8,
    pub(crate) leaves: Vec<LeafHash>,
}

impl FakeLog {
    pub(crate) fn new(id: u8) -> Self {
        let mut log =
            Self { log_id: LogId::new([id; 16]), epoch: Epoch(1), log_seed: id, epoch_seed: 100, leaves: vec![] };
        log.append("genesis");
        log.append("policy");
        log
    }

    pub(crate) fn append(&mut self, event: &str) -> Sequence {
        self.leaves.push(leaf_hash(event.as_bytes()));
        Sequence(self.leaves.len() as u64 - 1)
    }

    /// The enclave was started anew.
    pub(crate) fn open_next_epoch(&mut self) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.epoch_seed += 1;
        self.append(&format!("epoch {}", self.epoch));
    }

    pub(crate) fn with_other_log_key(mut self) -> Self {
        self.log_seed += 1;
        self
    }

    pub(crate) fn with_other_epoch_key(mut self) -> Self {
        self.epoch_seed += 50;
        self
    }

    pub(crate) fn state(&self) -> LogState {
        let root = root_of(&self.leaves[..], 0, self.leaves.len() as u64).unwrap_or(EMPTY_ROOT);
        LogState {
            epoch: self.epoch,
            size: self.leaves.len() as u64,
            root: RootHash::new(root),
            last: *self.leaves.last().unwrap(),
        }
    }

    pub(crate) fn receipt(&self, sequence: Sequence) -> Receipt {
        let state = self.state();
        Receipt {
            seal: Seal::sign(&self.epoch_key(), self.log_id, state),
            sequence,
            leaf: self.leaves[sequence.0 as usize],
            path: inclusion_proof(&self.leaves[..], sequence.0, state.size).unwrap(),
        }
    }

    pub(crate) fn checkpoint(&self) -> CheckpointReply {
        let state = self.state();
        let (log_key, epoch_key) = (self.log_key(), self.epoch_key());
        CheckpointReply {
            log_id: self.log_id,
            state,
            checkpoint: Checkpoint::of(self.log_id, &state).sign(&log_key, self.epoch, &epoch_key).to_string(),
            log_key: log_key.public_key(),
            epoch_key: epoch_key.public_key(),
            restored: None,
        }
    }

    fn log_key(&self) -> SigningKey {
        SigningKey::from_seed(&KeyMaterial::from_bytes([self.log_seed; 32])).unwrap()
    }

    fn epoch_key(&self) -> SigningKey {
        SigningKey::from_seed(&KeyMaterial::from_bytes([self.epoch_seed; 32])).unwrap()
    }
}

/// How a server gets the document for a nonce; and what else it answers, where that is not the ordinary.
pub(crate) type Documents = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;
pub(crate) type Answer = Box<dyn Fn(&Request<()>, Bytes, &mut FakeLog) -> Option<Response<Body>> + Send + Sync>;

/// What a server is made of.
pub(crate) struct Script {
    pub(crate) key: ChannelKey,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    pub(crate) documents: Documents,
    /// Gives no documents at all.
    pub(crate) busy: bool,
    /// Answers requests before their bodies are read.
    pub(crate) hasty: bool,
    pub(crate) answer: Answer,
    pub(crate) log: Arc<Mutex<FakeLog>>,
}

impl Script {
    /// A genuine enclave with that log.
    pub(crate) fn genuine(nsm: Arc<MockNsm>, log: &Arc<Mutex<FakeLog>>) -> Self {
        let key = ChannelKey::generate();
        let documents = channel_documents(nsm, key.spki(), log);
        Self {
            key,
            versions: vec![&rustls::version::TLS13],
            documents,
            busy: false,
            hasty: false,
            answer: Box::new(|_, _, _| None),
            log: Arc::clone(log),
        }
    }
}

/// Documents for clients over a key, as an enclave makes them.
pub(crate) fn channel_documents(nsm: Arc<MockNsm>, spki: Vec<u8>, log: &Arc<Mutex<FakeLog>>) -> Documents {
    let log = Arc::clone(log);
    Box::new(move |nonce| {
        let log = log.lock().unwrap();
        let data = UserData::Channel { log_id: log.log_id, epoch: log.epoch };
        document(&nsm, &spki, &data, nonce)
    })
}

pub(crate) fn document(nsm: &MockNsm, spki: &[u8], data: &UserData, nonce: &[u8]) -> Vec<u8> {
    let request = AttestationRequest {
        public_key: Some(spki.to_vec()),
        user_data: Some(data.encode()),
        nonce: Some(nonce.to_vec()),
    };
    nsm.attest(request).unwrap()
}

/// A running server. It ends when it is dropped.
pub(crate) struct Server {
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

/// What a server has seen.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    certificates: AtomicUsize,
    attestations: AtomicUsize,
    requests: AtomicUsize,
}

impl Server {
    pub(crate) async fn start(world: &World, script: Script) -> Self {
        // Each server has a socket of its own, and the address leads to the newest: nobody removes another's.
        let number = world.servers.fetch_add(1, Ordering::SeqCst);
        let socket = world.dir.path().join(format!("{number}.sock"));
        let listener = Endpoint::Unix(socket.clone()).bind().await.unwrap();
        let _ = std::fs::remove_file(world.socket());
        std::os::unix::fs::symlink(socket, world.socket()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls(world, &script)));
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(accept(listener, acceptor, Arc::new(script), Arc::clone(&seen)));
        Self { seen, task }
    }

    /// TLS handshakes that were finished.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Connections on which a client certificate was shown.
    pub(crate) fn certificates(&self) -> usize {
        self.seen.certificates.load(Ordering::SeqCst)
    }

    /// Documents that were asked for.
    pub(crate) fn attestations(&self) -> usize {
        self.seen.attestations.load(Ordering::SeqCst)
    }

    /// Requests but those for documents.
    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn tls(world: &World, script: &Script) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(world.ca_der.clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let key = PrivateKeyDer::try_from(script.key.key.serialize_der()).unwrap();
    let signing_key = provider.key_provider.load_private_key(key).unwrap();
    // Not `from_der`: a certificate with another's key must be possible.
    let certified = CertifiedKey::new(vec![script.key.certificate.clone()], signing_key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&script.versions)
        .unwrap()
        .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

async fn accept(listener: Listener, acceptor: TlsAcceptor, script: Arc<Script>, seen: Arc<Seen>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = listener.accept().await.unwrap();
        let (acceptor, script, seen) = (acceptor.clone(), Arc::clone(&script), Arc::clone(&seen));
        connections.spawn(async move {
            let Ok(tls) = acceptor.accept(stream).await else { return };
            seen.connections.fetch_add(1, Ordering::SeqCst);
            let shown = tls.get_ref().1.peer_certificates().is_some();
            seen.certificates.fetch_add(usize::from(shown), Ordering::SeqCst);
            let service = hyper::service::service_fn(|request| {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                async move { Ok::<_, Infallible>(respond(request, &script, &seen).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

async fn respond(request: Request<Incoming>, script: &Script, seen: &Seen) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = match script.hasty {
        true => Bytes::new(),
        false => body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
    };
    let request = Request::from_parts(head, ());
    let path = request.uri().path();
    if path == api::ATTESTATION {
        seen.attestations.fetch_add(1, Ordering::SeqCst);
        if script.busy {
            return refusal(ErrorCode::RateLimited);
        }
        let nonce = hex::decode(query(&request, "nonce")).unwrap();
        return whole((script.documents)(&nonce));
    }
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let mut log = script.log.lock().unwrap();
    if let Some(answer) = (script.answer)(&request, body, &mut log) {
        return answer;
    }
    match (request.method(), path) {
        (&Method::GET, api::CHECKPOINT) => json(&log.checkpoint()),
        (&Method::GET, api::CONSISTENCY) => {
            let (old, new) = (query(&request, "old").parse().unwrap(), query(&request, "new").parse().unwrap());
            let proof = consistency_proof(&log.leaves[..], old, new).unwrap_or_default();
            json(&ConsistencyReply { old, new, proof })
        }
        (&Method::GET, api::KEYS) => json(&KeyList { keys: vec![] }),
        (&Method::POST, api::KEYS) => {
            let sequence = log.append("key generated");
            json(&KeyChanged { key: some_key(), receipt: ReceiptText(log.receipt(sequence)) })
        }
        _ => refusal(ErrorCode::NoSuchRoute),
    }
}

pub(crate) fn refusal(code: ErrorCode) -> Response<Body> {
    let error =
        ApiError { code, message: "as the test wants".into(), retryable: code.retryable(), request_id: "r1".into() };
    let mut response = json(&error);
    *response.status_mut() = http::StatusCode::from_u16(code.status()).unwrap();
    response
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> Response<Body> {
    whole(serde_json::to_vec(value).unwrap())
}

fn whole(bytes: Vec<u8>) -> Response<Body> {
    Response::new(Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync())
}

/// A reply to content, in chunks; the last of them may be a failure.
pub(crate) fn content(
    log: &mut FakeLog,
    key: &str,
    context: &str,
    chunks: Vec<std::io::Result<&'static [u8]>>,
) -> Response<Body> {
    let sequence = log.append("key used");
    let body = StreamBody::new(futures_util::stream::iter(chunks).then(|chunk| async {
        // One after the other, as frames come: what came before a failure was sent before it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        chunk.map(|bytes| Frame::data(Bytes::from_static(bytes)))
    }));
    Response::builder()
        .header(api::KEY_HEADER, key)
        .header(api::CONTEXT_HEADER, STANDARD.encode(context))
        .header(api::RECEIPT_HEADER, ReceiptText(log.receipt(sequence)).to_string())
        .body(body.boxed_unsync())
        .unwrap()
}

pub(crate) fn some_key() -> KeyInfo {
    KeyInfo {
        decrypt_from: KeyVersion(1),
        id: "film-1".parse().unwrap(),
        state: KeyState::Active,
        active_version: None,
        policy: KeyRotationPolicy { max_age_secs: 60, max_uses: 10, require_attestation: false },
        rotation: RotationNeed::None,
        versions: vec![],
    }
}

fn query<'a>(request: &'a Request<()>, name: &str) -> &'a str {
    let pairs = request.uri().query().unwrap().split('&').map(|pair| pair.split_once('=').unwrap());
    pairs.into_iter().find(|(key, _)| *key == name).unwrap().1
}
