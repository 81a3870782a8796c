//! One certificate: read strictly, and held against everything that its place in the path demands.
//!
//! The path validation that follows knows neither key usage nor the validity of its anchor, accepts any order, and
//! takes path lengths that merely suffice. These checks close that gap, and come first, so that a refusal can say which
//! certificate lacks what.

use std::time::Duration;

use der::{
    Decode,
    asn1::{ObjectIdentifier, OctetString},
    oid::AssociatedOid,
};
use x509_cert::{
    TbsCertificate, Version,
    ext::pkix::{
        AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectKeyIdentifier,
    },
    name::Name,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
};

use super::refusal::{CertificateFault, Position};
use crate::time::Timestamp;

const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// An uncompressed P-384 point: 0x04, then x and y.
pub(super) type PublicKey = [u8; 97];

/// What matters of a certificate. Reading it has checked everything that holds for any place in the path.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    subject: Name,
    issuer: Name,
    not_before: Timestamp,
    not_after: Timestamp,
    key: PublicKey,
    extensions: Extensions,
}

#[derive(Debug, Clone, Default)]
struct Extensions {
    basic_constraints: Option<(Critical, BasicConstraints)>,
    key_usage: Option<(Critical, KeyUsage)>,
    own_key_id: Option<OctetString>,
    issuer_key_id: Option<OctetString>,
}

type Critical = bool;

impl Certificate {
    /// Reads DER: X.509 version 3, ecdsa-with-SHA384 in both places, a P-384 key, no extension twice and none that is
    /// critical but for basic constraints and key usage.
    pub(super) fn read(der: &[u8]) -> Result<Self, CertificateFault> {
        let certificate = x509_cert::Certificate::from_der(der).map_err(|_| CertificateFault::Malformed)?;
        let tbs = certificate.tbs_certificate();
        if tbs.version() != Version::V3 || tbs.issuer_unique_id().is_some() || tbs.subject_unique_id().is_some() {
            return Err(CertificateFault::Version);
        }
        if !is_ecdsa_with_sha384(certificate.signature_algorithm()) || !is_ecdsa_with_sha384(tbs.signature()) {
            return Err(CertificateFault::SignatureAlgorithm);
        }
        let time = |time: x509_cert::time::Time| timestamp(time.to_unix_duration());
        Ok(Self {
            subject: tbs.subject().clone(),
            issuer: tbs.issuer().clone(),
            not_before: time(tbs.validity().not_before),
            not_after: time(tbs.validity().not_after),
            key: p384_key(tbs.subject_public_key_info()).ok_or(CertificateFault::Key)?,
            extensions: Extensions::read(tbs)?,
        })
    }

    /// The subject's key.
    pub(super) const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Checks what the place in the path demands, time aside. The root is its own issuer.
    pub(super) fn check_place(&self, position: Position, issuer: &Self) -> Result<(), CertificateFault> {
        self.check_issuer(issuer)?;
        match position {
            Position::Root => self.check_authority(|path_length| path_length.is_none_or(|length| length >= 3)),
            Position::Regional => self.check_authority(|path_length| path_length == Some(2)),
            Position::Zonal => self.check_authority(|path_length| path_length == Some(1)),
            Position::Instance => self.check_authority(|path_length| path_length == Some(0)),
            Position::Leaf => self.check_leaf(),
        }
    }

    /// Checks the validity, whose ends are seconds and belong to it (RFC 5280 section 4.1.2.5).
    pub(super) fn check_time(&self, at: Timestamp) -> Result<(), CertificateFault> {
        if at.as_secs() < self.not_before.as_secs() {
            Err(CertificateFault::NotYetValid { not_before: self.not_before, at })
        } else if at.as_secs() > self.not_after.as_secs() {
            Err(CertificateFault::Expired { not_after: self.not_after, at })
        } else {
            Ok(())
        }
    }

    /// Names must be equal; key identifiers too where both certificates have them, which older ones do not.
    fn check_issuer(&self, issuer: &Self) -> Result<(), CertificateFault> {
        let key_ids_differ = match (&self.extensions.issuer_key_id, &issuer.extensions.own_key_id) {
            (Some(named), Some(own)) => named != own,
            _ => false,
        };
        if self.issuer != issuer.subject || key_ids_differ { Err(CertificateFault::Issuer) } else { Ok(()) }
    }

    fn check_authority(&self, path_length_fits: impl Fn(Option<u8>) -> bool) -> Result<(), CertificateFault> {
        match &self.extensions.basic_constraints {
            Some((true, BasicConstraints { ca: true, path_len_constraint })) => {
                if !path_length_fits(*path_len_constraint) {
                    return Err(CertificateFault::PathLength);
                }
            }
            _ => return Err(CertificateFault::BasicConstraints),
        }
        match &self.extensions.key_usage {
            Some((true, usage)) if usage.key_cert_sign() => Ok(()),
            _ => Err(CertificateFault::KeyUsage),
        }
    }

    fn check_leaf(&self) -> Result<(), CertificateFault> {
        match &self.extensions.basic_constraints {
            Some((_, constraints)) if constraints.ca => return Err(CertificateFault::BasicConstraints),
            Some((_, constraints)) if constraints.path_len_constraint.is_some() => {
                return Err(CertificateFault::PathLength);
            }
            _ => {}
        }
        match &self.extensions.key_usage {
            Some((_, usage)) if usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign() => Ok(()),
            _ => Err(CertificateFault::KeyUsage),
        }
    }
}

impl Extensions {
    fn read(tbs: &TbsCertificate) -> Result<Self, CertificateFault> {
        let mut read = Self::default();
        let all = tbs.extensions().map(Vec::as_slice).unwrap_or_default();
        for (index, extension) in all.iter().enumerate() {
            let refused = || CertificateFault::Extension { oid: extension.extn_id.to_string() };
            if all.iter().take(index).any(|earlier| earlier.extn_id == extension.extn_id) {
                return Err(refused());
            }
            let value = extension.extn_value.as_bytes();
            match extension.extn_id {
                BasicConstraints::OID => {
                    let constraints = BasicConstraints::from_der(value).map_err(|_| refused())?;
                    read.basic_constraints = Some((extension.critical, constraints));
                }
                KeyUsage::OID => {
                    let usage = KeyUsage::from_der(value).map_err(|_| refused())?;
                    read.key_usage = Some((extension.critical, usage));
                }
                // No certificate of this hierarchy is restricted in this way; one that is was made for something else.
                ExtendedKeyUsage::OID | NameConstraints::OID => return Err(refused()),
                _ if extension.critical => return Err(refused()),
                SubjectKeyIdentifier::OID => {
                    let SubjectKeyIdentifier(id) = SubjectKeyIdentifier::from_der(value).map_err(|_| refused())?;
                    read.own_key_id = Some(id);
                }
                AuthorityKeyIdentifier::OID => {
                    let id = AuthorityKeyIdentifier::from_der(value).map_err(|_| refused())?;
                    read.issuer_key_id = id.key_identifier;
                }
                _ => {}
            }
        }
        Ok(read)
    }
}

fn is_ecdsa_with_sha384(algorithm: &AlgorithmIdentifierOwned) -> bool {
    algorithm.oid == ECDSA_WITH_SHA384 && algorithm.parameters.is_none()
}

fn p384_key(info: &SubjectPublicKeyInfoOwned) -> Option<PublicKey> {
    let curve = info.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?;
    if info.algorithm.oid != EC_PUBLIC_KEY || curve != SECP384R1 {
        return None;
    }
    let point = PublicKey::try_from(info.subject_public_key.as_bytes()?).ok()?;
    (point.first() == Some(&0x04)).then_some(point)
}

fn timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp::from_secs(since_epoch.as_secs())
}
