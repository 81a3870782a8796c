//! Messages, wrapped keys, and the envelopes of KMS.

use std::sync::LazyLock;

use enclave_app::{
    keyring::WrappedRecord,
    kms::{cms, recipient::RecipientKey},
};
use transcode_confidential::{
    entropy::{Entropy, EntropyError},
    ids::{KeyId, KeyVersion},
    message::{EncryptionContext, Encryptor, FrameLength, HeaderReader, MessageError, WrappedDataKey, WrappingKey},
    secret::KeyMaterial,
};

use super::{edits::edited, material};

/// The key of the vectors that the Encryption SDK wrote, so that those are readable seeds.
const SECRET: &str = "0c4bcd108252844594d16e0d5aec3342300c8981c1ae3a7dfc5f9e58f71ce010";

struct Genuine {
    plaintext: Vec<u8>,
    message: Vec<u8>,
}

/// Five frames of sixteen bytes under a context of two pairs; the same in every process.
static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let context = EncryptionContext::from_pairs([("reel", "7"), ("title", "film")]).unwrap();
    let plaintext: Vec<u8> = (0..75).collect();
    let mut message = Vec::new();
    with_key(|wrap| {
        let frame = FrameLength::new(16).unwrap();
        let mut encryptor = Encryptor::begin(wrap, &context, frame, &Sevens, &mut message).unwrap();
        encryptor.push(&plaintext, &mut message).unwrap();
        encryptor.finish(&mut message).unwrap();
    });
    Genuine { plaintext, message }
});

struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
        out.fill(7);
        Ok(())
    }
}

fn with_key<T>(then: impl FnOnce(&WrappingKey<'_>) -> T) -> T {
    let key_id: KeyId = "content-key-1".parse().unwrap();
    let material = KeyMaterial::from_bytes(hex::decode(SECRET).unwrap().try_into().unwrap());
    then(&WrappingKey { key_id: &key_id, version: KeyVersion(7), material: &material })
}

/// What is released of a message that arrives in pieces, and how it ends.
fn read(message: &[u8], step: usize) -> (Vec<u8>, Result<(), MessageError>) {
    let mut released = Vec::new();
    let mut stream = || {
        let mut reader = HeaderReader::new();
        let mut chunks = message.chunks(step);
        let (header, rest) = loop {
            let Some(mut chunk) = chunks.next() else { return Err(reader.finish()) };
            if let Some(header) = reader.push(&mut chunk)? {
                break (header, chunk);
            }
        };
        let mut decryptor = with_key(|wrap| header.unwrap(wrap))?;
        decryptor.push(rest, &mut released)?;
        for chunk in chunks {
            decryptor.push(chunk, &mut released)?;
        }
        decryptor.finish()
    };
    let outcome = stream();
    (released, outcome)
}

/// Even first byte: a message. Odd: edits of a genuine one, of which nothing is released but its own beginning, and which is
/// complete only where it is untouched. The second byte says into what pieces it is cut, which changes nothing.
pub(super) fn message(input: &[u8]) {
    let [mode, step, rest @ ..] = input else { return };
    let bytes = if mode % 2 == 0 { rest.to_vec() } else { edited(&GENUINE.message, rest) };
    let whole = read(&bytes, bytes.len().max(1));
    assert_eq!(whole, read(&bytes, 1 + usize::from(*step)), "cut into pieces");
    if mode % 2 == 1 {
        assert!(GENUINE.plaintext.starts_with(&whole.0), "something else is released");
        assert_eq!(whole.1.is_ok(), bytes == GENUINE.message, "{:?}", whole.1);
        assert!(whole.1.is_err() || whole.0 == GENUINE.plaintext);
    }
}

/// What is accepted is the one encoding: of the record in the log, and of a data key on its own.
pub(super) fn wrapped_keys(input: &[u8]) {
    if let Ok(record) = WrappedRecord::from_bytes(input) {
        assert_eq!(record.to_bytes(), input);
    }
    if let Ok(wrapped) = WrappedDataKey::from_bytes(input) {
        assert_eq!(wrapped.to_bytes(), input);
        let _ = with_key(|wrap| wrapped.unwrap(wrap, &EncryptionContext::new()).map(drop));
    }
}

/// Even first byte: an envelope. Odd: edits of a genuine one for the same key. Its content has no MAC, so some edits open:
/// that they are told apart is not promised, that nothing panics is.
pub(super) fn cms_envelope(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let genuine = material::envelope();
    let envelope = if mode % 2 == 0 { rest.to_vec() } else { edited(genuine, rest) };
    let key = RecipientKey::from_pkcs8(material::recipient_key()).unwrap();
    if let Ok(secret) = cms::open(key, &envelope) {
        assert!(secret.len() < envelope.len());
    }
}
