//! A key, a context, some content, and readers and writers of messages about them.

use std::ops::Range;

use proptest::sample::Index;
use transcode_confidential::{
    entropy::OsEntropy,
    ids::{KeyId, KeyVersion},
    message::{EncryptionContext, Encryptor, FrameLength, HeaderReader, MessageError, WrappingKey},
    secret::KeyMaterial,
};

pub(crate) struct Key {
    id: KeyId,
    version: KeyVersion,
    material: KeyMaterial,
}

impl Key {
    pub(crate) fn new(id: &str, version: u32, byte: u8) -> Self {
        Self { id: id.parse().unwrap(), version: KeyVersion(version), material: KeyMaterial::from_bytes([byte; 32]) }
    }

    pub(crate) fn wrap(&self) -> WrappingKey<'_> {
        WrappingKey { key_id: &self.id, version: self.version, material: &self.material }
    }
}

pub(crate) fn key() -> Key {
    Key::new("content-key-1", 7, 0x11)
}

pub(crate) fn context() -> EncryptionContext {
    EncryptionContext::from_pairs([("content", "episode-7"), ("studio", "Ünïversal")]).unwrap()
}

pub(crate) fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// Encrypts `pieces`, one push each.
pub(crate) fn encrypt(key: &Key, context: &EncryptionContext, frame: u32, pieces: &[&[u8]]) -> Vec<u8> {
    let mut message = Vec::new();
    let frame = FrameLength::new(frame).unwrap();
    let mut encryptor = Encryptor::begin(&key.wrap(), context, frame, &OsEntropy, &mut message).unwrap();
    for piece in pieces {
        encryptor.push(piece, &mut message).unwrap();
    }
    encryptor.finish(&mut message).unwrap();
    message
}

/// What a reader that pushes `pieces` has released, and how it ended.
pub(crate) fn decrypt(key: &Key, pieces: &[&[u8]]) -> (Vec<u8>, Result<(), MessageError>) {
    let mut out = Vec::new();
    let outcome = decrypt_into(key, pieces, &mut out);
    (out, outcome)
}

pub(crate) fn decrypt_into(key: &Key, pieces: &[&[u8]], out: &mut Vec<u8>) -> Result<(), MessageError> {
    let mut reader = HeaderReader::new();
    let mut pieces = pieces.iter();
    let (header, rest) = loop {
        let Some(&(mut piece)) = pieces.next() else { return Err(reader.finish()) };
        if let Some(header) = reader.push(&mut piece)? {
            break (header, piece);
        }
        assert!(piece.is_empty(), "an incomplete header takes all there is");
    };
    let mut decryptor = header.unwrap(&key.wrap())?;
    decryptor.push(rest, out)?;
    for piece in pieces {
        decryptor.push(piece, out)?;
    }
    decryptor.finish()
}

pub(crate) fn cut<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

/// The header, then each frame.
pub(crate) fn parts(message: &[u8], frame: usize) -> Vec<Range<usize>> {
    let mut rest = message;
    HeaderReader::new().push(&mut rest).unwrap().unwrap();
    let mut start = message.len() - rest.len();
    let header = 0..start;
    let mut parts = vec![header];
    while message[start..start + 4] != [0xff; 4] {
        parts.push(start..start + 4 + 12 + frame + 16);
        start = parts.last().unwrap().end;
    }
    parts.push(start..message.len());
    parts
}
