use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper_util::rt::TokioIo;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::PrivateKeyDer,
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio_rustls::TlsAcceptor;
use transport::{Endpoint, Listener};

use super::{Script, World, answers::respond};

/// A running server. It ends when it is dropped.
pub(crate) struct Server {
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

/// What a server has seen.
#[derive(Default)]
pub(super) struct Seen {
    connections: AtomicUsize,
    certificates: AtomicUsize,
    pub(super) attestations: AtomicUsize,
    pub(super) requests: AtomicUsize,
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
