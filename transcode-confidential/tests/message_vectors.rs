//! Messages that the official Encryption SDK for Python wrote (`tests/peers/message_vectors.py` makes them): each file is
//! named by what it proves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Mutex};

use transcode_confidential::{
    entropy::{Entropy, EntropyError},
    ids::{KeyId, KeyVersion},
    message::{EncryptionContext, Encryptor, FrameLength, HeaderReader, MessageError, WrappingKey},
    secret::KeyMaterial,
};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    key: String,
    secret: String,
    context: EncryptionContext,
    frame_length: u32,
    plaintext: String,
    message: String,
    /// What the SDK drew: data key, IV, message id.
    randomness: Option<String>,
    /// The reason that our reader must give.
    refused: Option<String>,
}

impl Vector {
    fn all() -> BTreeMap<String, Self> {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/message");
        let read = |path: PathBuf| {
            let vector = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), vector)
        };
        fs::read_dir(directory).unwrap().map(|entry| read(entry.unwrap().path())).collect()
    }

    fn key(&self) -> (KeyId, KeyVersion, KeyMaterial) {
        let (id, version) = self.key.split_once('#').unwrap();
        let secret = <[u8; 32]>::try_from(hex::decode(&self.secret).unwrap()).unwrap();
        (id.parse().unwrap(), KeyVersion(version.parse().unwrap()), KeyMaterial::from_bytes(secret))
    }

    fn read(&self) -> (Vec<u8>, Result<(), MessageError>) {
        let (key_id, version, material) = self.key();
        let wrap = WrappingKey { key_id: &key_id, version, material: &material };
        let message = hex::decode(&self.message).unwrap();
        let mut out = Vec::new();
        let mut read = || {
            let mut rest = message.as_slice();
            let header = HeaderReader::new().push(&mut rest)?.expect("the header is complete");
            assert_eq!(header.frame_length().as_u32(), self.frame_length);
            header.require_context(&self.context)?;
            let mut decryptor = header.unwrap(&wrap)?;
            decryptor.push(rest, &mut out)?;
            decryptor.finish()
        };
        let outcome = read();
        (out, outcome)
    }

    fn write(&self, randomness: Vec<u8>) -> Vec<u8> {
        let (key_id, version, material) = self.key();
        let wrap = WrappingKey { key_id: &key_id, version, material: &material };
        let frame_length = FrameLength::new(self.frame_length).unwrap();
        let entropy = Recorded(Mutex::new(randomness));
        let mut message = Vec::new();
        let mut encryptor = Encryptor::begin(&wrap, &self.context, frame_length, &entropy, &mut message).unwrap();
        encryptor.push(&hex::decode(&self.plaintext).unwrap(), &mut message).unwrap();
        encryptor.finish(&mut message).unwrap();
        message
    }
}

/// Gives out what was recorded, in order, and fails at its end.
struct Recorded(Mutex<Vec<u8>>);

impl Entropy for Recorded {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
        let mut recorded = self.0.lock().unwrap();
        if recorded.len() < out.len() {
            return Err(EntropyError);
        }
        out.copy_from_slice(&recorded[..out.len()]);
        recorded.drain(..out.len());
        Ok(())
    }
}

#[test]
fn what_the_official_sdk_wrote_is_read_or_refused_for_the_right_reason() {
    let vectors = Vector::all();
    for (name, vector) in &vectors {
        let (out, outcome) = vector.read();
        match &vector.refused {
            None => assert_eq!((hex::encode(out), outcome), (vector.plaintext.clone(), Ok(())), "{name}"),
            Some(reason) => {
                assert_eq!(outcome.unwrap_err().reason(), reason, "{name}");
                assert!(out.is_empty(), "{name}");
            }
        }
    }
    let refused = vectors.values().filter(|vector| vector.refused.is_some()).count();
    assert_eq!((vectors.len(), refused), (14, 6));
}

#[test]
fn with_the_randomness_of_the_official_sdk_our_writer_gives_its_very_bytes() {
    let mut written = 0;
    for (name, vector) in Vector::all() {
        if let Some(randomness) = &vector.randomness {
            assert_eq!(hex::encode(vector.write(hex::decode(randomness).unwrap())), vector.message, "{name}");
            written += 1;
        }
    }
    assert_eq!(written, 6);
}
