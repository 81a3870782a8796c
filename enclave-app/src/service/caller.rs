use std::{ops::Deref, sync::Arc};

use axum::{extract::FromRequestParts, http::request::Parts};
use der::{
    Decode,
    asn1::{PrintableStringRef, Utf8StringRef},
    oid::ObjectIdentifier,
};
use rustls::pki_types::CertificateDer;
use transcode_confidential::{ids::Principal, protocol::api::ErrorCode};
use x509_cert::Certificate;

use super::Failure;
use crate::callers::{AttestedCaller, CallerSession};

/// `id-at-commonName`, RFC 5280 appendix A.1.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer(Option<Who>);

/// Whoever calls, by a client certificate that TLS has verified.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Who);

/// A principal on a connection, on which it may have attested itself.
#[derive(Debug, Clone)]
pub(super) struct Who {
    principal: Principal,
    session: Arc<CallerSession>,
}

impl Who {
    /// What its connection knows of it.
    pub(super) fn session(&self) -> &CallerSession {
        &self.session
    }

    /// What it attested itself to be, where it did.
    pub(super) fn attested(&self) -> Option<Arc<AttestedCaller>> {
        self.session.attested()
    }
}

impl Deref for Who {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.principal
    }
}

impl Peer {
    /// The principal of a verified certificate: its one common name. None without a certificate, or where it has not exactly
    /// one common name that is a principal.
    pub(super) fn of(certificate: Option<&CertificateDer<'_>>, session: CallerSession) -> Self {
        let principal = certificate.and_then(|der| common_name(der));
        Self(principal.map(|principal| Who { principal, session: Arc::new(session) }))
    }

    pub(super) fn principal(&self) -> Option<&Principal> {
        self.0.as_deref()
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let peer = parts.extensions.get::<Peer>().and_then(|peer| peer.0.clone());
        peer.map(Self).ok_or_else(|| Failure::new(ErrorCode::Unauthenticated, "a client certificate is needed"))
    }
}

fn common_name(der: &[u8]) -> Option<Principal> {
    let certificate = Certificate::from_der(der).ok()?;
    let subject = certificate.tbs_certificate().subject().as_ref();
    let mut names = subject.iter().flat_map(|rdn| rdn.as_ref().iter()).filter(|entry| entry.oid == COMMON_NAME);
    let (name, None) = (names.next()?, names.next()) else { return None };
    let utf8 = name.value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
    let printable = || name.value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned());
    utf8.or_else(|_| printable()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn principal(names: &[(DnType, &str)]) -> Option<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Peer::of(Some(certificate.der()), CallerSession::new(None)).principal().map(ToString::to_string)
    }

    #[test]
    fn a_principal_is_the_one_common_name_of_a_certificate() {
        assert_eq!(principal(&[(DnType::CommonName, "transcoder-1")]).as_deref(), Some("transcoder-1"));
        assert_eq!(
            principal(&[(DnType::OrganizationName, "studio"), (DnType::CommonName, "ops@studio")]).as_deref(),
            Some("ops@studio")
        );
        assert_eq!(principal(&[(DnType::OrganizationName, "transcoder-1")]), None);
        assert_eq!(principal(&[(DnType::CommonName, "two words")]), None);
        assert!(Peer::of(None, CallerSession::new(None)).principal().is_none());
    }
}
