use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    MessageError,
    data_key::DataKey,
    primitives::{BulkKey, HkdfSha512, Nonce, Tag},
};
use crate::{
    entropy::{Entropy, EntropyError},
    secret::{KeyMaterial, on_a_clean_stack},
};

/// AES-256-GCM, HKDF-SHA-512, key commitment, no signature.
pub(super) const SUITE_ID: u16 = 0x0478;

/// Info of the commitment key, as Encryption SDK specification, framework/algorithm-suites, "Commit Key".
const COMMIT_INFO: &[u8] = b"COMMITKEY";
/// Info of the frame key: the suite id and "DERIVEKEY", ibid. "Encrypt Key".
const DERIVE_INFO: &[u8] = b"\x04\x78DERIVEKEY";

/// Names a message, and salts the derivation of its keys: 32 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId([u8; Self::LEN]);

impl MessageId {
    /// Length in bytes.
    pub const LEN: usize = 32;

    pub(super) const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(super) fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = [0; Self::LEN];
        entropy.fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// Binds a message to one data key; public.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commitment(pub(super) [u8; Self::LEN]);

impl Commitment {
    pub(super) const LEN: usize = 32;

    /// Compares in constant time.
    pub(super) fn require(self, found: Self) -> Result<(), MessageError> {
        if bool::from(self.0.ct_eq(&found.0)) { Ok(()) } else { Err(MessageError::Unauthentic) }
    }
}

/// What a data key becomes for one message.
pub(super) struct MessageKeys {
    pub(super) key: BulkKey,
    pub(super) commitment: Commitment,
}

impl MessageKeys {
    pub(super) fn derive(data_key: &DataKey, id: &MessageId) -> Result<Self, MessageError> {
        on_a_clean_stack(|| Self::derived(data_key, id))
    }

    fn derived(data_key: &DataKey, id: &MessageId) -> Result<Self, MessageError> {
        let hkdf = HkdfSha512::extract(id.as_bytes(), data_key.material().expose());
        let mut commitment = [0; Commitment::LEN];
        let mut key = Zeroizing::new([0; 32]);
        // Neither expansion can fail: 32 bytes are far below 255 blocks.
        hkdf.expand(COMMIT_INFO, &mut commitment).map_err(|_| MessageError::Unauthentic)?;
        hkdf.expand(DERIVE_INFO, key.as_mut_slice()).map_err(|_| MessageError::Unauthentic)?;
        let key = BulkKey::new(&KeyMaterial::copied_from(&key)).map_err(|_| MessageError::Unauthentic)?;
        Ok(Self { key, commitment: Commitment(commitment) })
    }

    /// The tag over a header body: AES-GCM of nothing, under IV zero, which no frame uses.
    pub(super) fn header_tag(&self, body: &[u8]) -> Result<Tag, MessageError> {
        self.key.seal(HEADER_NONCE, body, &mut []).map_err(|_| MessageError::Unauthentic)
    }

    pub(super) fn verify_header(&self, body: &[u8], tag: Tag) -> Result<(), MessageError> {
        self.key.open(HEADER_NONCE, body, &mut [], tag).map_err(|_| MessageError::Unauthentic)
    }
}

const HEADER_NONCE: Nonce = Nonce([0; 12]);
