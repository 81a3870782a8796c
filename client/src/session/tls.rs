//! TLS as the enclave speaks it: 1.3 only, no tickets, no resumption, no early data; trust comes from the key alone.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
    sign::SingleCertAndKey,
};
use thiserror::Error;

use super::identity::Identity;

/// The one application protocol that is offered.
const ALPN: &[u8] = b"http/1.1";

/// The public key that a server proved to hold in its handshake: DER SubjectPublicKeyInfo.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServerKey(Vec<u8>);

impl ServerKey {
    /// The DER.
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }

    /// The key of a certificate, whoever signed that.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        Ok(Self(ParsedCertificate::try_from(certificate)?.subject_public_key_info().to_vec()))
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerKey({})", hex::encode(&self.0))
    }
}

/// The server's key is not the attested one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the server's key is not the one that was attested")]
pub(super) struct PinMismatch;

/// A connection on which nothing but the attestation document is asked for: every key is taken, none is believed, and no
/// client certificate exists that could be shown.
pub(super) fn unattested() -> Result<ClientConfig, rustls::Error> {
    let config = builder(KeyVerifier::new(None))?.with_no_client_auth();
    Ok(finished(config))
}

/// A connection to the holder of `key`. In TLS 1.3 the client sends its certificate after the server has proven its key, so
/// nobody else ever sees `identity`.
pub(super) fn attested(key: ServerKey, identity: Option<&Identity>) -> Result<ClientConfig, rustls::Error> {
    let builder = builder(KeyVerifier::new(Some(key)))?;
    Ok(finished(match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key()))),
        None => builder.with_no_client_auth(),
    }))
}

/// What stands in the place of a name: it is neither sent nor compared with anything.
pub(super) fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

pub(super) fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn builder(verifier: KeyVerifier) -> Result<Builder, rustls::Error> {
    Ok(ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn finished(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

/// Takes any certificate, or any with the expected key. Names, dates and issuers play no part: the attestation document
/// vouches for the key. That the server holds it is checked as always.
#[derive(Debug)]
struct KeyVerifier {
    expected: Option<ServerKey>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KeyVerifier {
    fn new(expected: Option<ServerKey>) -> Self {
        Self { expected, algorithms: provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = ServerKey::of(end_entity)?;
        match &self.expected {
            Some(expected) if *expected != found => {
                Err(CertificateError::Other(OtherError(Arc::new(PinMismatch))).into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
