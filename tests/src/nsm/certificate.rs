//! Certificates as the hypervisor's hierarchy has them, with every part open to be made wrong.

use transcode_confidential::time::Timestamp;

use super::{
    der::{BIT_STRING, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, SET, UTF8_STRING, bit_string, time, tlv},
    key::SigningKey,
};

/// What a certificate says, before it is signed.
#[derive(Debug, Clone)]
pub struct CertificateDraft {
    /// The version number as encoded, 2 for X.509 version 3; none leaves the field out, which means version 1.
    pub version: Option<u8>,
    /// Positive, at most 20 bytes.
    pub serial: Vec<u8>,
    /// The algorithm within what is signed.
    pub inner_algorithm: Algorithm,
    /// The algorithm beside the signature.
    pub outer_algorithm: Algorithm,
    /// Common name of the issuer.
    pub issuer: String,
    /// First second of validity.
    pub not_before: Timestamp,
    /// Last second of validity.
    pub not_after: Timestamp,
    /// Common name of the subject.
    pub subject: String,
    /// SubjectPublicKeyInfo, DER.
    pub public_key_info: Vec<u8>,
    /// In this order; none leaves the field out.
    pub extensions: Vec<Extension>,
}

/// The signature algorithm that a certificate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The only one in the genuine hierarchy.
    EcdsaWithSha384,
    /// The same with a NULL parameter, which RFC 5758 does not allow.
    EcdsaWithSha384AndNull,
    /// Of P-256 certificates as a rule.
    EcdsaWithSha256,
    /// Of newer ones.
    EcdsaWithSha3_384,
}

/// One extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Content of the object identifier.
    pub oid: Vec<u8>,
    /// Whether who does not understand it must refuse.
    pub critical: bool,
    /// The value, DER.
    pub value: Vec<u8>,
}

/// Bits of the key usage, RFC 5280 section 4.2.1.3.
pub mod usage {
    /// digitalSignature.
    pub const SIGN: u8 = 0x80;
    /// nonRepudiation.
    pub const COMMIT: u8 = 0x40;
    /// keyCertSign.
    pub const CERTIFY: u8 = 0x04;
    /// cRLSign.
    pub const REVOKE: u8 = 0x02;
}

const CA: &[u8] = &[0x01, 0x01, 0xff];

impl Extension {
    /// Object identifier of the basic constraints.
    pub const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    /// Object identifier of the key usage.
    pub const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];

    fn new(oid: &[u8], critical: bool, value: Vec<u8>) -> Self {
        Self { oid: oid.to_vec(), critical, value }
    }

    /// Critical basic constraints of an authority.
    pub fn authority(path_length: Option<u8>) -> Self {
        let path_length = path_length.map(|length| tlv(INTEGER, &[&[length]])).unwrap_or_default();
        Self::new(Self::BASIC_CONSTRAINTS, true, tlv(SEQUENCE, &[CA, &path_length]))
    }

    /// Critical basic constraints of what is no authority.
    pub fn no_authority() -> Self {
        Self::new(Self::BASIC_CONSTRAINTS, true, tlv(SEQUENCE, &[]))
    }

    /// Basic constraints with a path length, of what is no authority: nonsense.
    pub fn path_length_without_authority() -> Self {
        Self::new(Self::BASIC_CONSTRAINTS, true, tlv(SEQUENCE, &[&tlv(INTEGER, &[&[0]])]))
    }

    /// A key usage with these bits, critical as authorities have it.
    pub fn key_usage(bits: u8) -> Self {
        let unused = bits.trailing_zeros().min(7) as u8;
        Self::new(Self::KEY_USAGE, true, tlv(BIT_STRING, &[&[unused, bits]]))
    }

    /// Identifies the subject's key.
    pub fn own_key_id(id: &[u8]) -> Self {
        Self::new(&[0x55, 0x1d, 0x0e], false, tlv(OCTET_STRING, &[id]))
    }

    /// Identifies the issuer's key.
    pub fn issuer_key_id(id: &[u8]) -> Self {
        Self::new(&[0x55, 0x1d, 0x23], false, tlv(SEQUENCE, &[&tlv(0x80, &[id])]))
    }

    /// Limits the use to TLS servers.
    pub fn extended_key_usage() -> Self {
        let server = tlv(OBJECT_IDENTIFIER, &[&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]]);
        Self::new(&[0x55, 0x1d, 0x25], false, tlv(SEQUENCE, &[&server]))
    }

    /// Limits the names below to `example.com`.
    pub fn name_constraints() -> Self {
        let permitted = tlv(0xa0, &[&tlv(SEQUENCE, &[&tlv(0x82, &[b"example.com"])])]);
        Self::new(&[0x55, 0x1d, 0x1e], false, tlv(SEQUENCE, &[&permitted]))
    }

    /// Something that nobody knows, 1.2.3.4.
    pub fn unknown(critical: bool) -> Self {
        Self::new(&[0x2a, 0x03, 0x04], critical, vec![0x05, 0x00])
    }

    /// So many bytes that mean nothing, 1.2.3.5.
    pub fn padding(length: usize) -> Self {
        Self::new(&[0x2a, 0x03, 0x05], false, tlv(OCTET_STRING, &[&vec![0; length]]))
    }
}

impl CertificateDraft {
    /// The certificate in DER, with the issuer's signature.
    pub fn sign(&self, issuer: &SigningKey) -> Vec<u8> {
        let signed = self.signed_part();
        let signature = match self.outer_algorithm {
            Algorithm::EcdsaWithSha3_384 => issuer.sign_certificate_with_sha3(&signed),
            _ => issuer.sign_certificate(&signed),
        };
        tlv(SEQUENCE, &[&signed, &self.outer_algorithm.encode(), &bit_string(&signature)])
    }

    /// Replaces the extension of the same kind, or adds it.
    pub fn set(&mut self, extension: Extension) {
        match self.extensions.iter_mut().find(|existing| existing.oid == extension.oid) {
            Some(existing) => *existing = extension,
            None => self.extensions.push(extension),
        }
    }

    /// Removes the extension of that kind.
    pub fn remove(&mut self, oid: &[u8]) {
        self.extensions.retain(|existing| existing.oid != oid);
    }

    fn signed_part(&self) -> Vec<u8> {
        let version = self.version.map(|version| tlv(0xa0, &[&tlv(INTEGER, &[&[version]])])).unwrap_or_default();
        let validity = tlv(SEQUENCE, &[&time(self.not_before), &time(self.not_after)]);
        let extensions: Vec<_> = self.extensions.iter().map(Extension::encode).collect();
        let extensions = match extensions.as_slice() {
            [] => Vec::new(),
            some => tlv(0xa3, &[&tlv(SEQUENCE, &[&some.concat()])]),
        };
        let parts = [
            version,
            tlv(INTEGER, &[&self.serial]),
            self.inner_algorithm.encode(),
            name(&self.issuer),
            validity,
            name(&self.subject),
            self.public_key_info.clone(),
            extensions,
        ];
        tlv(SEQUENCE, &[&parts.concat()])
    }
}

impl Extension {
    fn encode(&self) -> Vec<u8> {
        let critical: &[u8] = if self.critical { &[0x01, 0x01, 0xff] } else { &[] };
        tlv(SEQUENCE, &[&tlv(OBJECT_IDENTIFIER, &[&self.oid]), critical, &tlv(OCTET_STRING, &[&self.value])])
    }
}

impl Algorithm {
    fn encode(self) -> Vec<u8> {
        let (oid, parameters): (&[u8], &[u8]) = match self {
            Self::EcdsaWithSha384 => (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], &[]),
            Self::EcdsaWithSha384AndNull => (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], &[0x05, 0x00]),
            Self::EcdsaWithSha256 => (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02], &[]),
            Self::EcdsaWithSha3_384 => (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x0b], &[]),
        };
        tlv(SEQUENCE, &[&tlv(OBJECT_IDENTIFIER, &[oid]), parameters])
    }
}

/// `O=Amazon, OU=AWS, CN=...`.
fn name(common_name: &str) -> Vec<u8> {
    let attribute = |kind: u8, value: &str| {
        let kind = tlv(OBJECT_IDENTIFIER, &[&[0x55, 0x04, kind]]);
        tlv(SET, &[&tlv(SEQUENCE, &[&kind, &tlv(UTF8_STRING, &[value.as_bytes()])])])
    };
    tlv(SEQUENCE, &[&attribute(10, "Amazon"), &attribute(11, "AWS"), &attribute(3, common_name)])
}
