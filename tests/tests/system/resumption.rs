//! The enclave's end of TLS, asked by a client that would take less than ours does.

use std::sync::Arc;

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use testkit::world::World;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Takes any certificate: what is asked here is the protocol.
#[derive(Debug)]
struct Anybody;

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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn config(version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.enable_early_data = true;
    Arc::new(config)
}

/// How the handshake went, after one request and its answer.
async fn ask(world: &World, config: &Arc<ClientConfig>) -> std::io::Result<Option<HandshakeKind>> {
    let stream = world.server().connect(std::time::Duration::from_secs(20)).await.unwrap();
    let name = ServerName::try_from("enclave.example").unwrap();
    let mut tls = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
    tls.write_all(b"GET /v1/attestation HTTP/1.1\r\nhost: enclave\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    let connection: &ClientConnection = tls.get_ref().1;
    assert_eq!(connection.tls13_tickets_received(), 0);
    assert!(!connection.is_early_data_accepted());
    Ok(connection.handshake_kind())
}

#[tokio::test]
async fn no_connection_resumes_another_and_none_is_of_tls_1_2() {
    let world = World::start().await;
    let willing = config(&rustls::version::TLS13);
    for _ in 0..3 {
        assert_eq!(ask(&world, &willing).await.unwrap(), Some(HandshakeKind::Full));
    }
    assert!(ask(&world, &config(&rustls::version::TLS12)).await.is_err());
    world.check().intact();
}
