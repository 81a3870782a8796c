//! The certificate authority of the mock's endpoint.

use std::{ops::Range, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

/// A root and its key.
pub struct Authority {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    /// Makes a root.
    pub fn generate() -> Self {
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = root_params().self_signed(&key).expect("a root certificate");
        Self { key, pem: certificate.pem(), certificate: certificate.into() }
    }

    /// Reads a root from PEM.
    pub fn from_pem(certificate: &str, key: &str) -> Self {
        Self {
            key: KeyPair::from_pem(key).expect("a key in PEM"),
            certificate: CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate in PEM"),
            pem: certificate.to_owned(),
        }
    }

    /// The root in PEM.
    pub fn certificate_pem(&self) -> String {
        self.pem.clone()
    }

    /// The root's key in PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A store that has the root.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a usable root");
        roots
    }

    /// A server with a fresh certificate for `host`, valid from the start of the first year to the start of the last.
    pub fn server_config(&self, host: &str, years: Range<i32>) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a P-256 key");
        let mut params = CertificateParams::new([host.to_owned()]).expect("a host name");
        params.distinguished_name.push(DnType::CommonName, host);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        let issuer = Issuer::new(root_params(), &self.key);
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], key)
            .expect("a matching key");
        Arc::new(config)
    }
}

fn root_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Mock KMS Root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}
