use std::str::FromStr;

use zeroize::Zeroizing;

use super::{
    EncryptionContext, Malformed, MessageError, PROVIDER_ID,
    context::put_length,
    cursor::{Cursor, Stop},
    data_key::DataKey,
    header::EncryptedDataKey,
    primitives::{Nonce, ReferenceKey, Tag},
};
use crate::{
    entropy::Entropy,
    ids::{KeyId, KeyVersion},
    secret::{KeyMaterial, on_a_clean_stack},
};

/// One version of a content key, as far as wrapping needs it.
#[derive(Debug, Clone, Copy)]
pub struct WrappingKey<'a> {
    /// The content key.
    pub key_id: &'a KeyId,
    /// Its version.
    pub version: KeyVersion,
    /// That version's secret.
    pub material: &'a KeyMaterial,
}

/// A data key, wrapped under one version of a content key and bound to an encryption context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedDataKey {
    key_id: KeyId,
    version: KeyVersion,
    iv: [u8; Self::IV_LEN],
    sealed: [u8; Self::SEALED_LEN],
}

impl WrappedDataKey {
    const IV_LEN: usize = 12;
    const TAG_LEN: usize = 16;
    const SEALED_LEN: usize = 32 + Self::TAG_LEN;
    /// Longest [`to_bytes`](Self::to_bytes).
    pub const MAX_BYTES: usize = 6 + PROVIDER_ID.len() + Self::MAX_INFO + Self::SEALED_LEN;
    const MAX_INFO: usize = KeyId::MAX + "#4294967295".len() + 4 + 4 + Self::IV_LEN;

    /// Wraps a data key with AES-256-GCM under a random IV, with the serialized context as associated data.
    ///
    /// # Errors
    /// [`MessageError::Entropy`].
    pub fn wrap(
        data_key: &DataKey,
        wrap: &WrappingKey<'_>,
        context: &EncryptionContext,
        entropy: &dyn Entropy,
    ) -> Result<Self, MessageError> {
        let mut iv = [0; Self::IV_LEN];
        entropy.fill(&mut iv)?;
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(data_key.material().expose());
        let context = context.serialize();
        let sealing = || ReferenceKey::new(wrap.material).seal(Nonce(iv), &context, key.as_mut_slice());
        let Tag(tag) = on_a_clean_stack(sealing).map_err(|_| MessageError::Unauthentic)?;
        let mut sealed = [0; Self::SEALED_LEN];
        sealed.iter_mut().zip(key.iter().chain(&tag)).for_each(|(slot, byte)| *slot = *byte);
        Ok(Self { key_id: wrap.key_id.clone(), version: wrap.version, iv, sealed })
    }

    /// Gives the data key back, where key, version and context are those that it was wrapped under.
    ///
    /// # Errors
    /// [`MessageError::OtherKey`], [`MessageError::Unauthentic`].
    pub fn unwrap(&self, wrap: &WrappingKey<'_>, context: &EncryptionContext) -> Result<DataKey, MessageError> {
        if !self.is_under(wrap) {
            return Err(MessageError::OtherKey);
        }
        let (Some(key), Some(tag)) = (self.sealed.first_chunk::<32>(), self.sealed.last_chunk()) else {
            return Err(MessageError::Unauthentic);
        };
        let mut key = Zeroizing::new(*key);
        let context = context.serialize();
        let opening = || ReferenceKey::new(wrap.material).open(Nonce(self.iv), &context, key.as_mut_slice(), Tag(*tag));
        on_a_clean_stack(opening).map_err(|_| MessageError::Unauthentic)?;
        Ok(DataKey::from_material(KeyMaterial::copied_from(&key)))
    }

    /// The content key that it names. Authenticated only by unwrapping.
    pub const fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// The version that it names. Authenticated only by unwrapping.
    pub const fn version(&self) -> KeyVersion {
        self.version
    }

    /// Whether it names this key and version.
    pub fn is_under(&self, wrap: &WrappingKey<'_>) -> bool {
        self.key_id == *wrap.key_id && self.version == wrap.version
    }

    /// The encrypted data key structure of the message format: provider id, provider information and ciphertext, each
    /// behind its 16-bit length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::MAX_BYTES);
        for field in [PROVIDER_ID.as_bytes(), &self.info(), &self.sealed] {
            put_length(&mut out, field.len());
            out.extend_from_slice(field);
        }
        out
    }

    /// Reads [`to_bytes`](Self::to_bytes), and nothing else.
    ///
    /// # Errors
    /// [`MessageError::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut cursor = Cursor::new(bytes);
        match EncryptedDataKey::parse(&mut cursor) {
            Ok(EncryptedDataKey::Ours(wrapped)) if cursor.at() == bytes.len() => Ok(wrapped),
            Ok(EncryptedDataKey::Ours(_)) => Err(Malformed::Trailing.into()),
            Ok(EncryptedDataKey::Foreign { .. }) => Err(Malformed::ProviderInfo.into()),
            Err(Stop::Needs(_)) => Err(Malformed::Truncated.into()),
            Err(Stop::Refused(malformed)) => Err(malformed.into()),
        }
    }

    /// Key name, tag length in bits, IV length, IV, as a raw AES keyring writes them.
    fn info(&self) -> Vec<u8> {
        let mut info = format!("{}#{}", self.key_id, self.version).into_bytes();
        info.extend_from_slice(&TAG_BITS.to_be_bytes());
        info.extend_from_slice(&IV_BYTES.to_be_bytes());
        info.extend_from_slice(&self.iv);
        info
    }

    /// Reads provider information and ciphertext of an encrypted data key that names our provider.
    pub(super) fn parse(info: &[u8], sealed: &[u8]) -> Option<Self> {
        let (info, iv) = info.split_last_chunk()?;
        let (info, iv_bytes) = info.split_last_chunk()?;
        let (name, tag_bits) = info.split_last_chunk()?;
        if u32::from_be_bytes(*tag_bits) != TAG_BITS || u32::from_be_bytes(*iv_bytes) != IV_BYTES {
            return None;
        }
        let (key_id, version) = std::str::from_utf8(name).ok()?.split_once('#')?;
        let number = u32::from_str(version).ok().filter(|number| number.to_string() == version)?;
        Some(Self {
            key_id: key_id.parse().ok()?,
            version: KeyVersion(number),
            iv: *iv,
            sealed: sealed.try_into().ok()?,
        })
    }
}

const TAG_BITS: u32 = 128;
const IV_BYTES: u32 = 12;
