//! `confidential pki`: a client CA and identities for those who have none.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;
use transcode_confidential::{
    ids::Principal,
    time::{Clock as _, SystemClock, Timestamp},
};
use x509_cert::der::Decode as _;

use super::{
    args::PkiVerb,
    exit::{Done, Failure},
    files::{self, Access},
};
use crate::session::common_name;

pub(super) fn run(verb: PkiVerb) -> Result<Done, Failure> {
    match verb {
        PkiVerb::Init { dir, name, days } => init(&dir, &name, days),
        PkiVerb::Client { name, dir, days, output } => client(&name, &dir, days, output),
    }
}

fn init(dir: &Path, name: &str, days: u32) -> Result<Done, Failure> {
    let (certificate_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
    std::fs::create_dir_all(dir).map_err(|error| Failure::file(dir, &error))?;
    let key = generate()?;
    let mut params = params(name, Validity::from_today(days));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(unusable)?;
    files::create(&key_path, key.serialize_pem().as_bytes(), Access::Private)?;
    files::create(&certificate_path, certificate.pem().as_bytes(), Access::Public)?;
    let text = format!(
        "made client CA {name:?}\n  {}  goes into the enclave's measured configuration as client_ca\n  {}  signs \
         identities: whoever has it can be any principal; keep it offline",
        certificate_path.display(),
        key_path.display()
    );
    let json = json!({ "certificate": certificate_path, "key": key_path, "name": name });
    Ok(Done::ok(json, text))
}

fn client(name: &Principal, dir: &Path, days: u32, output: Option<PathBuf>) -> Result<Done, Failure> {
    let ca = Authority::load(dir)?;
    let output = output.unwrap_or_else(|| dir.join(format!("{}.pem", name.as_str().replace(['/', ':'], "_"))));
    let key = generate()?;
    let mut params = params(name.as_str(), Validity::from_today(days).within(&ca.certificate)?);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &ca.issuer).map_err(unusable)?;
    let identity = format!("{}{}", certificate.pem(), key.serialize_pem());
    files::create(&output, identity.as_bytes(), Access::Private)?;
    let text = format!("made identity {name}\n  {}  is its certificate and private key: --identity", output.display());
    Ok(Done::ok(json!({ "identity": output, "principal": name }), text))
}

/// A CA that `pki init` made.
struct Authority {
    certificate: x509_cert::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn load(dir: &Path) -> Result<Self, Failure> {
        let (certificate_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        let unreadable = |path: &Path| Failure::file(path, &"cannot be read; confidential pki init makes a CA");
        let der = CertificateDer::from_pem_slice(&files::read(&certificate_path)?)
            .map_err(|_| unreadable(&certificate_path))?;
        let certificate = x509_cert::Certificate::from_der(&der).map_err(|_| unreadable(&certificate_path))?;
        let key = KeyPair::from_pem(&files::read_text(&key_path)?).map_err(|_| unreadable(&key_path))?;
        // The issuer's name in the identities must be the CA's, which is one common name in those that are made here.
        let only_name = certificate.tbs_certificate().subject().iter().count() == 1;
        let name = common_name(&der).filter(|_| only_name).ok_or_else(|| unreadable(&certificate_path))?;
        if certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
            != key.public_key_raw()
        {
            return Err(Failure::file(&key_path, &"is not the key of ca.pem"));
        }
        let issuer = Issuer::new(params(&name, Validity::from_today(1)), key);
        Ok(Self { certificate, issuer })
    }
}

/// Days, as certificates count them: from a midnight to a midnight, UTC.
#[derive(Clone, Copy)]
struct Validity {
    from: Timestamp,
    to: Timestamp,
}

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

impl Validity {
    /// From the last midnight on, so that a clock that is a little behind accepts it.
    fn from_today(days: u32) -> Self {
        let now = SystemClock.now();
        let from = Timestamp(now.0 - now.0 % 86_400_000);
        Self { from, to: from.plus(DAY.saturating_mul(days)) }
    }

    /// Cut to that of the CA.
    fn within(self, ca: &x509_cert::Certificate) -> Result<Self, Failure> {
        let end = Timestamp::from_secs(ca.tbs_certificate().validity().not_after.to_unix_duration().as_secs());
        if end <= SystemClock.now() {
            return Err(Failure::malformed(format!("the CA was valid until {end}; make a new one")));
        }
        Ok(Self { from: self.from, to: self.to.min(end) })
    }
}

fn params(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + std::time::Duration::from_secs(validity.from.as_secs());
    params.not_after = epoch + std::time::Duration::from_secs(validity.to.as_secs());
    params
}

fn generate() -> Result<KeyPair, Failure> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unusable)
}

fn unusable(error: rcgen::Error) -> Failure {
    Failure::malformed(format!("no certificate could be made: {error}"))
}
