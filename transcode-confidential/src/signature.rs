//! Ed25519 keys and signatures (RFC 8032), each signing only inside a named domain.
//!
//! Every message that this project signs outside a C2SP note starts with the byte 0xFF, which never occurs in UTF-8, followed
//! by the name of its domain and a zero byte. So no such signature is ever valid for a note, or for another domain.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use thiserror::Error;

use crate::secret::KeyMaterial;

/// A signature that does not verify, or a key that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the signature does not verify")]
pub struct SignatureError;

/// What a signature is about; part of the signed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Domain {
    /// The state of a log at the end of a batch, by an epoch key.
    Seal,
    /// The opening of an epoch, by the log key.
    Epoch,
}

impl Domain {
    const fn name(self) -> &'static str {
        match self {
            Self::Seal => "transcode-confidential/seal/v1",
            Self::Epoch => "transcode-confidential/epoch/v1",
        }
    }

    fn message(self, body: &[u8]) -> Vec<u8> {
        [&[0xff], self.name().as_bytes(), &[0], body].concat()
    }
}

/// An Ed25519 private key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// The key of a 32-byte seed (RFC 8032 section 5.1.5).
    ///
    /// # Errors
    /// Never for 32 bytes, as far as the specification goes.
    pub fn from_seed(seed: &KeyMaterial) -> Result<Self, SignatureError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| SignatureError)?;
        let public = PublicKey::try_from(pair.public_key().as_ref())?;
        Ok(Self { pair, public })
    }

    /// The public half.
    pub const fn public_key(&self) -> PublicKey {
        self.public
    }

    /// Signs `body` within `domain`.
    pub fn sign(&self, domain: Domain, body: &[u8]) -> Signature {
        self.sign_bare(&domain.message(body))
    }

    /// Signs bytes that carry a domain of their own: a C2SP note, or a COSE `Sig_structure`.
    pub(crate) fn sign_bare(&self, message: &[u8]) -> Signature {
        let mut bytes = [0; Signature::LEN];
        // An Ed25519 signature has 64 bytes (RFC 8032 section 5.1.6).
        for (to, from) in bytes.iter_mut().zip(self.pair.sign(message).as_ref()) {
            *to = *from;
        }
        Signature(bytes)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(secret of {})", self.public)
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// DER of SubjectPublicKeyInfo up to the key itself (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl PublicKey {
    /// Wraps the 32 bytes; whether they are a point on the curve shows when a signature is verified.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// DER SubjectPublicKeyInfo, 44 bytes: the form inside attestation documents.
    pub fn to_spki(&self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0].concat()
    }

    /// Reads what [`PublicKey::to_spki`] writes.
    ///
    /// # Errors
    /// Anything that is not exactly an Ed25519 SubjectPublicKeyInfo.
    pub fn from_spki(der: &[u8]) -> Result<Self, SignatureError> {
        der.strip_prefix(&SPKI_PREFIX).ok_or(SignatureError)?.try_into()
    }

    /// Verifies a signature over `body` within `domain`.
    ///
    /// # Errors
    /// [`SignatureError`] for every way to fail.
    pub fn verify(&self, domain: Domain, body: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        self.verify_bare(&domain.message(body), signature)
    }

    pub(crate) fn verify_bare(&self, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, &signature.0).map_err(|_| SignatureError)
    }
}

impl TryFrom<&[u8]> for PublicKey {
    type Error = SignatureError;

    fn try_from(bytes: &[u8]) -> Result<Self, SignatureError> {
        bytes.try_into().map(Self).map_err(|_| SignatureError)
    }
}

/// 64 bytes of Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; Self::LEN]);

impl Signature {
    /// Length in bytes.
    pub const LEN: usize = 64;

    /// Wraps the 64 bytes.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

macro_rules! hex_text {
    ($name:ident, $len:expr) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = SignatureError;

            fn from_str(text: &str) -> Result<Self, SignatureError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| SignatureError)?;
                Ok(Self(bytes))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <std::borrow::Cow<'de, str>>::deserialize(deserializer)?
                    .parse()
                    .map_err(|_| serde::de::Error::custom(concat!("not a hexadecimal ", stringify!($name))))
            }
        }
    };
}
hex_text!(PublicKey, 32);
hex_text!(Signature, Signature::LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_of_one_domain_is_worth_nothing_in_another_or_in_none() {
        let key = SigningKey::from_seed(&KeyMaterial::from_bytes([1; 32])).unwrap();
        let signature = key.sign(Domain::Seal, b"body");
        let public = key.public_key();
        assert_eq!(public.verify(Domain::Seal, b"body", &signature), Ok(()));
        assert!(public.verify(Domain::Epoch, b"body", &signature).is_err());
        assert!(public.verify(Domain::Seal, b"bodY", &signature).is_err());
        assert!(public.verify_bare(b"body", &signature).is_err());
        assert!(std::str::from_utf8(&Domain::Seal.message(b"")).is_err(), "a note is UTF-8");
    }

    #[test]
    fn the_key_of_rfc_8032_section_7_1_test_1_signs_as_printed() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let seed = KeyMaterial::from_bytes(hex::decode(seed).unwrap().try_into().unwrap());
        let key = SigningKey::from_seed(&seed).unwrap();
        assert_eq!(key.public_key().to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert!(
            key.sign_bare(b"")
                .to_string()
                .starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e0652249015")
        );
        assert_eq!(PublicKey::from_spki(&key.public_key().to_spki()), Ok(key.public_key()));
    }
}
