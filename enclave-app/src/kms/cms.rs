//! Opens the CMS EnvelopedData (RFC 5652 section 6) in which KMS seals a reply to a recipient.
//!
//! The envelope carries no MAC: whoever can write one chooses its content. What makes it trustworthy is the TLS connection
//! that it arrives over. Therefore nothing here tries to tell *why* an envelope is bad: there is one error, the work is the
//! same after the structure has been read, and the key that opens an envelope is gone afterwards.

mod padding;
mod shape;

use aws_lc_rs::cipher::{AES_256, AES_256_KEY_LEN, DecryptingKey, DecryptionContext, UnboundCipherKey};
use thiserror::Error;
use zeroize::Zeroizing;

use self::shape::Sealed;
use super::recipient::RecipientKey;

/// The longest envelope that is read, in bytes: content of 6 KiB and its wrapping.
pub const MAX_ENVELOPE: usize = 8 * 1024;

/// The envelope is not one that KMS would have made for this key. It never says more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the reply's envelope could not be opened")]
pub struct EnvelopeError;

/// Opens an envelope with the key that it was asked for, consuming the key.
///
/// Accepts BER with indefinite lengths, exactly one key transport recipient that is named by SHA-256 of our
/// SubjectPublicKeyInfo, RSAES-OAEP with SHA-256 throughout, and AES-256-CBC with PKCS#7 padding; the encrypted content
/// primitive or in any number of OCTET STRINGs. An OAEP failure continues with a key of zeros, so that it takes the path
/// of a padding failure.
///
/// # Errors
/// [`EnvelopeError`], the same for whatever is wrong.
pub fn open(key: RecipientKey, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    let sealed = Sealed::read(envelope, key.id()).ok_or(EnvelopeError)?;
    let unwrapped = key.decrypt(sealed.encrypted_key()).filter(|content_key| content_key.len() == AES_256_KEY_LEN);
    let key_is_ours = unwrapped.is_some();
    let content_key = unwrapped.unwrap_or_else(|| Zeroizing::new(vec![0; AES_256_KEY_LEN]));
    let mut content = Zeroizing::new(sealed.ciphertext().to_vec());
    decrypt_blocks(&content_key, sealed.iv(), &mut content)?;
    let length = padding::unpadded_length(&content);
    match Option::from(length) {
        Some(length) if key_is_ours => {
            content.truncate(length);
            Ok(content)
        }
        _ => Err(EnvelopeError),
    }
}

/// AES-256-CBC in place; the padding is left for a check that takes the same time whatever it finds.
fn decrypt_blocks(key: &[u8], iv: [u8; 16], blocks: &mut [u8]) -> Result<(), EnvelopeError> {
    let key = UnboundCipherKey::new(&AES_256, key).and_then(DecryptingKey::cbc).map_err(|_| EnvelopeError)?;
    key.decrypt(blocks, DecryptionContext::Iv128(iv.into())).map(|_| ()).map_err(|_| EnvelopeError)
}
