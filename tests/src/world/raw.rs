//! TLS to an enclave without anything that a client of ours does on top: for those who send what no client sends.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use rustls_pki_types::pem::PemObject as _;
use tokio_rustls::{TlsConnector, client::TlsStream};
use transport::{Endpoint, Stream};

use super::World;

/// Makes TLS connections.
#[derive(Clone)]
pub struct RawTls {
    connector: TlsConnector,
}

impl World {
    /// TLS 1.3 with the certificate of an identity, or with none. The server may be anybody.
    pub fn raw_tls(&self, identity: Option<&str>) -> RawTls {
        let identity = identity.map(|name| {
            let pem = self.ca.identity_pem(name);
            let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
            (certificate, PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key"))
        });
        RawTls::new(&rustls::version::TLS13, identity)
    }
}

impl RawTls {
    /// One version of TLS, and no certificate. The server may be anybody.
    pub fn of_version(version: &'static SupportedProtocolVersion) -> Self {
        Self::new(version, None)
    }

    /// It would resume sessions and send early data, if a server let it.
    fn new(
        version: &'static SupportedProtocolVersion,
        identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(Anybody(Arc::clone(&provider)));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version that the provider knows")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).expect("a good identity"),
        };
        config.enable_early_data = true;
        Self { connector: TlsConnector::from(Arc::new(config)) }
    }

    /// Over a connection that is there.
    ///
    /// # Errors
    /// Those of the handshake.
    pub async fn over(&self, stream: Stream) -> std::io::Result<TlsStream<Stream>> {
        let name = ServerName::try_from("anybody").expect("a name");
        self.connector.connect(name, stream).await
    }

    /// Over a new connection.
    ///
    /// # Errors
    /// Those of the handshake, and that nobody listens.
    pub async fn connect(&self, to: &Endpoint) -> std::io::Result<TlsStream<Stream>> {
        let stream = to.connect(std::time::Duration::from_secs(60)).await.map_err(std::io::Error::other)?;
        self.over(stream).await
    }
}

/// Takes any certificate, and asks only that the server has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
