//! The ciphers under the message format, for test vectors and for those who must call them bare.
//!
//! Nothing here guards against the reuse of a nonce, which breaks AES-GCM: prefer [`Encryptor`](super::Encryptor) and
//! [`IssuedDataKey`](super::IssuedDataKey), which cannot reuse one.
//!
//! There are two AES-256-GCM implementations that give the same bytes: [`ReferenceKey`] (the `aes-gcm` crate) wraps data
//! keys, [`BulkKey`] (`aws-lc-rs`, about twice as fast) seals frames.

use std::fmt;

use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as LcNonce, UnboundKey};
use hkdf::Hkdf;
use sha2::Sha512;
use thiserror::Error;
use zeroize::Zeroize;

use crate::secret::KeyMaterial;

/// A 96-bit AES-GCM nonce, never to be used twice with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; 12]);

/// A 128-bit AES-GCM authentication tag. Not comparable: opening compares it, in constant time.
#[derive(Debug, Clone, Copy)]
pub struct Tag(pub [u8; 16]);

/// The tag does not match, or an input is longer than AES-GCM allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("AES-256-GCM refused the input")]
pub struct CipherError;

/// AES-256-GCM by the `aes-gcm` crate.
pub struct ReferenceKey(Aes256Gcm);

impl ReferenceKey {
    /// Expands the key.
    pub fn new(material: &KeyMaterial) -> Self {
        Self(Aes256Gcm::new(material.expose().into()))
    }

    /// Encrypts `in_out` in place.
    ///
    /// # Errors
    /// [`CipherError`], for more bytes than the cipher takes.
    pub fn seal(&self, nonce: Nonce, aad: &[u8], in_out: &mut [u8]) -> Result<Tag, CipherError> {
        let tag = self.0.encrypt_inout_detached(&nonce.0.into(), aad, in_out.into()).map_err(|_| CipherError)?;
        Ok(Tag(tag.into()))
    }

    /// Decrypts `in_out` in place; on error its content must not be used.
    ///
    /// # Errors
    /// [`CipherError`], whatever is wrong.
    pub fn open(&self, nonce: Nonce, aad: &[u8], in_out: &mut [u8], tag: Tag) -> Result<(), CipherError> {
        self.0.decrypt_inout_detached(&nonce.0.into(), aad, in_out.into(), &tag.0.into()).map_err(|_| CipherError)
    }
}

impl fmt::Debug for ReferenceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReferenceKey(secret)")
    }
}

/// AES-256-GCM by `aws-lc-rs`.
pub struct BulkKey(LessSafeKey);

impl BulkKey {
    /// Expands the key.
    ///
    /// # Errors
    /// [`CipherError`], which does not happen for a key of this length.
    pub fn new(material: &KeyMaterial) -> Result<Self, CipherError> {
        let key = UnboundKey::new(&AES_256_GCM, material.expose()).map_err(|_| CipherError)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Encrypts `in_out` in place.
    ///
    /// # Errors
    /// [`CipherError`], for more bytes than the cipher takes.
    pub fn seal(&self, nonce: Nonce, aad: &[u8], in_out: &mut [u8]) -> Result<Tag, CipherError> {
        let nonce = LcNonce::assume_unique_for_key(nonce.0);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), in_out).map_err(|_| CipherError)?;
        <[u8; 16]>::try_from(tag.as_ref()).map(Tag).map_err(|_| CipherError)
    }

    /// Decrypts `in_out` in place; on error its content must not be used.
    ///
    /// # Errors
    /// [`CipherError`], whatever is wrong.
    pub fn open(&self, nonce: Nonce, aad: &[u8], in_out: &mut [u8], tag: Tag) -> Result<(), CipherError> {
        let nonce = LcNonce::assume_unique_for_key(nonce.0);
        self.0.open_in_place_separate_tag(nonce, Aad::from(aad), &tag.0, in_out).map(|_| ()).map_err(|_| CipherError)
    }
}

impl fmt::Debug for BulkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BulkKey(secret)")
    }
}

/// HKDF-SHA-512 (RFC 5869), extracted once and expanded as often as there are purposes.
pub struct HkdfSha512(Hkdf<Sha512>);

/// More than 255 blocks of SHA-512 were asked of one expansion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("HKDF-SHA-512 cannot expand to that length")]
pub struct HkdfLength;

impl HkdfSha512 {
    /// HKDF-Extract.
    pub fn extract(salt: &[u8], input_key_material: &[u8]) -> Self {
        let (mut pseudorandom_key, hkdf) = Hkdf::extract(Some(salt), input_key_material);
        pseudorandom_key.as_mut_slice().zeroize();
        Self(hkdf)
    }

    /// HKDF-Expand to the whole of `out`.
    ///
    /// # Errors
    /// [`HkdfLength`].
    pub fn expand(&self, info: &[u8], out: &mut [u8]) -> Result<(), HkdfLength> {
        self.0.expand(info, out).map_err(|_| HkdfLength)
    }
}

impl fmt::Debug for HkdfSha512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HkdfSha512(secret)")
    }
}
