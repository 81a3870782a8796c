use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P384_SHA3_384_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _,
    },
};

use super::der::{OBJECT_IDENTIFIER, SEQUENCE, bit_string, tlv};

const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const SECP384R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const SECP521R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

/// The curve of a key: P-384 everywhere in the genuine hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// As in genuine certificates.
    P384,
    /// Another one that signs with SHA-384 as well.
    P521,
}

/// The private key of a certificate.
#[derive(Clone)]
pub struct SigningKey {
    curve: Curve,
    pkcs8: Vec<u8>,
}

impl SigningKey {
    /// A fresh key.
    pub fn generate(curve: Curve) -> Self {
        let key = EcdsaKeyPair::generate(certificate_algorithm(curve)).unwrap();
        Self { curve, pkcs8: key.to_pkcs8v1().unwrap().as_ref().to_vec() }
    }

    /// A key that was made elsewhere, in PKCS#8.
    pub const fn from_pkcs8(curve: Curve, pkcs8: Vec<u8>) -> Self {
        Self { curve, pkcs8 }
    }

    /// The private key, PKCS#8.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key as an uncompressed point.
    pub fn point(&self) -> Vec<u8> {
        self.pair(certificate_algorithm(self.curve)).public_key().as_ref().to_vec()
    }

    /// The public key as SubjectPublicKeyInfo, DER.
    pub fn public_key_info(&self) -> Vec<u8> {
        public_key_info(self.curve, &self.point())
    }

    /// An ECDSA signature with SHA-384 as certificates carry it, DER.
    pub fn sign_certificate(&self, message: &[u8]) -> Vec<u8> {
        self.sign_with(certificate_algorithm(self.curve), message)
    }

    /// An ECDSA signature with SHA3-384, DER. P-384 only.
    pub fn sign_certificate_with_sha3(&self, message: &[u8]) -> Vec<u8> {
        self.sign_with(&ECDSA_P384_SHA3_384_ASN1_SIGNING, message)
    }

    /// An ECDSA signature with SHA-384 as COSE carries it: r and s, 96 bytes. P-384 only.
    pub fn sign_cose(&self, message: &[u8]) -> Vec<u8> {
        self.sign_with(&ECDSA_P384_SHA384_FIXED_SIGNING, message)
    }

    fn sign_with(&self, algorithm: &'static EcdsaSigningAlgorithm, message: &[u8]) -> Vec<u8> {
        self.pair(algorithm).sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    fn pair(&self, algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
        EcdsaKeyPair::from_pkcs8(algorithm, &self.pkcs8).unwrap()
    }
}

/// SubjectPublicKeyInfo of any bytes that are said to be a point on a curve.
pub fn public_key_info(curve: Curve, point: &[u8]) -> Vec<u8> {
    let curve = match curve {
        Curve::P384 => SECP384R1,
        Curve::P521 => SECP521R1,
    };
    let algorithm = tlv(SEQUENCE, &[&tlv(OBJECT_IDENTIFIER, &[EC_PUBLIC_KEY]), &tlv(OBJECT_IDENTIFIER, &[curve])]);
    tlv(SEQUENCE, &[&algorithm, &bit_string(point)])
}

fn certificate_algorithm(curve: Curve) -> &'static EcdsaSigningAlgorithm {
    match curve {
        Curve::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        Curve::P521 => &ECDSA_P521_SHA384_ASN1_SIGNING,
    }
}
