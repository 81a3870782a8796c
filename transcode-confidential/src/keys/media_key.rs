use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    ids::{KeyId, KeyVersion, MediaContent, Period},
    secret::KeyMaterial,
};

/// Salt of the derivation: nothing else is ever derived under it.
const DOMAIN: &[u8] = b"transcode-confidential/media-key/v1";

/// 128 bits for a packager that encrypts by itself, as HLS `METHOD=AES-128` does.
///
/// `HKDF-SHA-256(salt = "transcode-confidential/media-key/v1", ikm = version key, info = key id length (2) || key id ||
/// version (4) || content length (2) || content || period (8))`, 16 bytes. Whoever has it learns nothing of the version key
/// or of any other media key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MediaKey(Box<[u8; 16]>);

impl MediaKey {
    /// Length, in bytes.
    pub const LEN: usize = 16;

    /// The key of one period of some content, under one version of a key. The same inputs always give the same key.
    pub fn derive(
        version_key: &KeyMaterial,
        id: &KeyId,
        version: KeyVersion,
        content: &MediaContent,
        period: Period,
    ) -> Self {
        let mut info = Vec::with_capacity(16 + id.as_str().len() + content.as_str().len());
        put_text(&mut info, id.as_str());
        info.extend(version.0.to_be_bytes());
        put_text(&mut info, content.as_str());
        info.extend(period.0.to_be_bytes());
        let mut key = Self(Box::new([0; Self::LEN]));
        let expanded = Hkdf::<Sha256>::new(Some(DOMAIN), version_key.expose()).expand(&info, key.0.as_mut_slice());
        // RFC 5869: up to 255 hashes can be had.
        debug_assert!(expanded.is_ok(), "16 bytes are less than 8160");
        key
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for MediaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MediaKey(secret)")
    }
}

/// A text of at most 128 bytes, behind its length.
fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn derive(material: u8, id: &str, version: u32, content: &str, period: u64) -> [u8; 16] {
        let (id, content) = (id.parse().unwrap(), content.parse().unwrap());
        *MediaKey::derive(&KeyMaterial::from_bytes([material; 32]), &id, KeyVersion(version), &content, Period(period))
            .expose()
    }

    #[test]
    fn every_input_counts_and_the_same_inputs_give_the_same_key() {
        let keys = [
            derive(7, "film-1", 1, "reel-7", 0),
            derive(8, "film-1", 1, "reel-7", 0),
            derive(7, "film-2", 1, "reel-7", 0),
            derive(7, "film-1", 2, "reel-7", 0),
            derive(7, "film-1", 1, "reel-8", 0),
            derive(7, "film-1", 1, "reel-7", 1),
            // The same characters, cut elsewhere.
            derive(7, "film-1r", 1, "eel-7", 0),
        ];
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
        assert_eq!(keys[0], derive(7, "film-1", 1, "reel-7", 0));
        assert_ne!(&keys[0][..], &[7; 16], "never a part of the version key");
        assert_eq!(format!("{:?}", MediaKey(Box::new(keys[0]))), "MediaKey(secret)");
    }
}
