//! Content encryption: AWS Encryption SDK message format 2.0, algorithm suite 0x0478, framed, streaming.
//!
//! Suite 0x0478 is AES-256-GCM with HKDF-SHA-512 and key commitment, without a signature. A message carries a fresh data
//! key, wrapped under one version of a content key; the official Encryption SDKs read it through a raw AES keyring.
//!
//! Everything here is sans-I/O: bytes are pushed in, bytes come out in a buffer of the caller's, and neither side holds
//! more than one frame. What [`Decryptor::push`] appends was authenticated first, frame by frame; that the message is
//! *complete* is known only when [`Decryptor::finish`] returns `Ok`.
//!
//! ```
//! use transcode_confidential::{
//!     entropy::OsEntropy,
//!     ids::{KeyId, KeyVersion},
//!     message::{EncryptionContext, Encryptor, FrameLength, HeaderReader, MessageError, WrappingKey},
//!     secret::KeyMaterial,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key_id: KeyId = "content-key-1".parse()?;
//! let material = KeyMaterial::generate(&OsEntropy)?;
//! let key = WrappingKey { key_id: &key_id, version: KeyVersion(1), material: &material };
//! let context = EncryptionContext::from_pairs([("content", "episode-7")])?;
//!
//! let mut message = Vec::new();
//! let mut encryptor = Encryptor::begin(&key, &context, FrameLength::DEFAULT, &OsEntropy, &mut message)?;
//! encryptor.push(b"the first ", &mut message)?;
//! encryptor.push(b"and the last", &mut message)?;
//! encryptor.finish(&mut message)?;
//!
//! let mut rest = message.as_slice();
//! let header = HeaderReader::new().push(&mut rest)?.ok_or("the header is incomplete")?;
//! assert_eq!(header.context(), &context); // not to be believed before `unwrap` has returned
//! let mut decryptor = header.unwrap(&key)?;
//! let mut plaintext = Vec::new();
//! decryptor.push(rest, &mut plaintext)?;
//! decryptor.finish()?;
//! assert_eq!(plaintext, b"the first and the last");
//! # Ok(())
//! # }
//! ```
//!
//! Where the caller works on its own cores, the keeper of the content key issues a data key ([`IssuedDataKey::issue`]),
//! the caller encrypts with it ([`Encryptor::begin_issued`]), and for reading the keeper unwraps
//! ([`WrappedDataKey::unwrap`]) and the caller decrypts ([`ParsedHeader::decrypt_with`]).
//!
//! With many cores, [`FrameWriter`] and [`FrameReader`] number the frames of a message in order, and threads seal and open
//! them by the block.

mod context;
mod cursor;
mod data_key;
mod decryptor;
mod encryptor;
mod error;
mod frame;
mod header;
mod header_reader;
mod parallel;
pub mod primitives;
mod reencryptor;
mod suite;
#[cfg(test)]
mod tests;
mod wrapping;

pub use context::{ContextError, EncryptionContext};
pub use data_key::{DataKey, IssuedDataKey};
pub use decryptor::Decryptor;
pub use encryptor::Encryptor;
pub use error::{Malformed, MessageError};
pub use frame::FrameLength;
pub use header::{EncryptedDataKey, ParsedHeader};
pub use header_reader::HeaderReader;
pub use parallel::{AssignedBlock, FrameReader, FrameRun, FrameWriter, SealBlock, SealedBlock};
pub use reencryptor::Reencryptor;
pub use suite::MessageId;
pub use wrapping::{WrappedDataKey, WrappingKey};

/// Provider id of the encrypted data keys that this project writes; the key namespace of a raw AES keyring.
pub const PROVIDER_ID: &str = "transcode-confidential";

/// Most encrypted data keys that a message may carry.
pub const MAX_ENCRYPTED_DATA_KEYS: usize = 8;
