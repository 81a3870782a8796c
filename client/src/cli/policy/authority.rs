use std::path::Path;

use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use transcode_confidential::{
    entropy::OsEntropy,
    secret::KeyMaterial,
    signature::{PublicKey, SigningKey},
};
use zeroize::Zeroizing;

use crate::cli::{exit::Failure, files};

/// PKCS #8 around an Ed25519 seed (RFC 8410 section 7), without the public key: as OpenSSL writes it too.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The private key of a policy authority.
pub(super) struct AuthorityKey {
    seed: KeyMaterial,
    signing_key: SigningKey,
}

impl AuthorityKey {
    pub(super) fn generate() -> Result<Self, Failure> {
        let seed = KeyMaterial::generate(&OsEntropy).map_err(|error| Failure::malformed(error.to_string()))?;
        Self::from_seed(seed).map_err(|()| Failure::malformed("no key could be made"))
    }

    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let pem = Zeroizing::new(files::read_text(path)?);
        Self::from_pem(&pem).map_err(|()| Failure::file(path, &"not an Ed25519 private key (PKCS #8 in PEM)"))
    }

    pub(super) fn from_pem(pem: &str) -> Result<Self, ()> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| ())?;
        let seed = der.secret_pkcs8_der().strip_prefix(&PKCS8_PREFIX).and_then(|seed| seed.try_into().ok()).ok_or(())?;
        Self::from_seed(KeyMaterial::from_bytes(seed))
    }

    pub(super) fn to_pem(&self) -> Zeroizing<String> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let der = Zeroizing::new([&PKCS8_PREFIX[..], self.seed.expose()].concat());
        let base64 = Zeroizing::new(STANDARD.encode(&*der));
        // 48 bytes are 64 characters: one line, whatever the line length.
        Zeroizing::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", *base64))
    }

    pub(super) const fn signing_key(&self) -> &SigningKey {
        &self.signing_key
    }

    pub(super) const fn public_key(&self) -> PublicKey {
        self.signing_key.public_key()
    }

    fn from_seed(seed: KeyMaterial) -> Result<Self, ()> {
        let signing_key = SigningKey::from_seed(&seed).map_err(|_| ())?;
        Ok(Self { seed, signing_key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file() {
        let key = AuthorityKey::generate().unwrap();
        let read = AuthorityKey::from_pem(&key.to_pem()).ok().unwrap();
        assert_eq!(read.public_key(), key.public_key());
    }

    #[test]
    fn a_key_made_by_openssl_is_read() {
        // The seed of RFC 8032 section 7.1 test 1, as openssl pkey prints it.
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
        let key = AuthorityKey::from_pem(pem).ok().unwrap();
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(key.public_key().to_string(), public);
        assert_eq!(key.to_pem().as_str(), pem);
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        assert!(AuthorityKey::from_pem(&other.serialize_pem()).is_err());
        assert!(AuthorityKey::from_pem("").is_err());
    }
}
