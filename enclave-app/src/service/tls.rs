//! The channel: TLS 1.3 that ends here, under a key that exists only for this boot.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};
use thiserror::Error;
use transcode_confidential::time::Clock;
use zeroize::Zeroizing;

/// The name in the channel's certificate. Nobody relies on it: clients pin the attested key.
const NAME: &str = "enclave.transcode-confidential.invalid";

/// The channel's key, and how connections are accepted with it.
#[derive(Clone)]
pub struct Channel {
    /// TLS configuration.
    pub config: Arc<ServerConfig>,
    /// SubjectPublicKeyInfo of the channel's key, DER: what an attestation document for a client names.
    pub spki: Arc<[u8]>,
}

/// The channel cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The client CA is no certificate.
    #[error("client_ca: {0}")]
    ClientCa(String),
    /// No key or certificate could be made.
    #[error("the channel's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS refuses the configuration.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

struct EnclaveTime(Arc<dyn Clock>);

impl std::fmt::Debug for EnclaveTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EnclaveTime")
    }
}

impl TimeProvider for EnclaveTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_millis(self.0.now().0)))
    }
}

impl Channel {
    /// Makes a key for this boot. Clients may show certificates of `client_ca` (PEM); without one they reach only what proves
    /// who we are.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn new(client_ca: &str, clock: Arc<dyn Clock>) -> Result<Self, ChannelError> {
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?;
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(client_ca.as_bytes()) {
            let certificate = certificate.map_err(|error| ChannelError::ClientCa(error.to_string()))?;
            roots.add(certificate).map_err(|error| ChannelError::ClientCa(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| ChannelError::ClientCa(error.to_string()))?;
        let der = Zeroizing::new(key.serialize_der());
        let signing_key = any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&der[..])))?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], signing_key);
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(EnclaveTime(clock)))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        // Every connection proves afresh that it has the attested key: no tickets, no resumption, no early data.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), spki: spki.into() })
    }
}
