//! Tests of the format as a whole.

use super::*;
use crate::{
    entropy::OsEntropy,
    ids::{KeyId, KeyVersion},
    secret::KeyMaterial,
};

#[test]
fn what_was_encrypted_comes_back() {
    let key_id: KeyId = "k".parse().unwrap();
    let material = KeyMaterial::from_bytes([1; 32]);
    let wrap = WrappingKey { key_id: &key_id, version: KeyVersion(3), material: &material };
    let plaintext: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    let mut message = Vec::new();
    let frame_length = FrameLength::new(1000).unwrap();
    let mut encryptor =
        Encryptor::begin(&wrap, &EncryptionContext::new(), frame_length, &OsEntropy, &mut message).unwrap();
    encryptor.push(&plaintext, &mut message).unwrap();
    encryptor.finish(&mut message).unwrap();
    let mut rest = message.as_slice();
    let header = HeaderReader::new().push(&mut rest).unwrap().unwrap();
    let mut decryptor = header.unwrap(&wrap).unwrap();
    let mut out = Vec::new();
    decryptor.push(rest, &mut out).unwrap();
    decryptor.finish().unwrap();
    assert_eq!(out, plaintext);
}
