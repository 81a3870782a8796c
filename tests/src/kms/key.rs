use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::policy::Policy;

/// Whether a key can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum KeyState {
    /// As made.
    Enabled,
    /// By an administrator.
    Disabled,
    /// Scheduled for deletion.
    PendingDeletion,
}

/// A KMS key.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) arn: String,
    pub(super) material: [u8; 32],
    pub(super) policy: Policy,
    pub(super) state: KeyState,
}

/// Marks what this mock wrapped.
const MAGIC: &[u8] = b"mock-kms/1";

impl Key {
    /// A blob that names the key and is bound to it and to the context.
    pub(super) fn wrap(&self, plaintext: &[u8], context: &BTreeMap<String, String>) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).expect("randomness");
        let mut sealed = plaintext.to_vec();
        let aad = Aad::from(self.bound_to(context));
        let cipher = self.cipher();
        cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).expect("a short text");
        [MAGIC, &[self.id.len() as u8], self.id.as_bytes(), &nonce, &sealed].concat()
    }

    /// What `wrap` was given, for the same context.
    pub(super) fn unwrap(&self, blob: &[u8], context: &BTreeMap<String, String>) -> Option<Vec<u8>> {
        let (id, sealed) = split(blob)?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut plaintext = sealed.to_vec();
        let aad = Aad::from(self.bound_to(context));
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.cipher().open_in_place(nonce, aad, &mut plaintext).ok()?.len();
        plaintext.truncate(length);
        (id == self.id).then_some(plaintext)
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.material).expect("32 bytes"))
    }

    fn bound_to(&self, context: &BTreeMap<String, String>) -> Vec<u8> {
        let mut out = self.arn.as_bytes().to_vec();
        for text in context.iter().flat_map(|(key, value)| [key, value]) {
            out.extend_from_slice(&(text.len() as u64).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out
    }
}

/// The id of the key that wrapped a blob, and the rest.
pub(super) fn split(blob: &[u8]) -> Option<(&str, &[u8])> {
    let (&length, rest) = blob.strip_prefix(MAGIC)?.split_first()?;
    let (id, sealed) = rest.split_at_checked(usize::from(length))?;
    Some((std::str::from_utf8(id).ok()?, sealed))
}
