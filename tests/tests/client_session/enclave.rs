//! A server that says what a test wants: TLS and documents are real, the log is a list, and everything can be a lie.

mod answers;
mod fake_log;
mod server;

use std::sync::{Arc, Mutex, atomic::AtomicUsize};

use bytes::Bytes;
use client::{
    Client,
    log_memory::LogMemory,
    session::{Identity, Session, Settings},
};
use enclave_app::nsm::{AttestationRequest, Nsm as _};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{SupportedProtocolVersion, pki_types::CertificateDer};
use testkit::nsm::{MockHypervisor, MockImage, MockNsm, Mode};
use transcode_confidential::{
    attestation::{ImagePolicy, UserData},
    ids::LogId,
    time::SystemClock,
};
use transport::Endpoint;

pub(crate) use answers::{content, json, refusal, some_key};
pub(crate) use fake_log::FakeLog;
pub(crate) use server::Server;

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
