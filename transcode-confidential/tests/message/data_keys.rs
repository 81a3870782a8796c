//! Data keys that travel without their messages.

use transcode_confidential::{
    entropy::OsEntropy,
    message::{
        DataKey, EncryptionContext, Encryptor, FrameLength, HeaderReader, IssuedDataKey, MessageError, WrappedDataKey,
    },
    secret::KeyMaterial,
};

use crate::sample::{content, context, decrypt, encrypt, key};

#[test]
fn a_wrapped_data_key_opens_under_its_own_context_only() {
    let issued = IssuedDataKey::issue(&key().wrap(), &context(), &OsEntropy).unwrap();
    let opened = issued.wrapped().unwrap(&key().wrap(), &context()).unwrap();
    assert_eq!(opened.material().expose(), issued.data_key().material().expose());
    let mut more = context();
    more.insert("reel", "1").unwrap();
    for other in [EncryptionContext::new(), more] {
        assert_eq!(issued.wrapped().unwrap(&key().wrap(), &other).err(), Some(MessageError::Unauthentic));
    }
}

#[test]
fn an_issued_data_key_encrypts_elsewhere_and_its_message_is_like_any_other() {
    // The keeper of the content key issues; only these bytes travel.
    let issued = IssuedDataKey::issue(&key().wrap(), &context(), &OsEntropy).unwrap();
    let (plain, wrapped) = (*issued.data_key().material().expose(), issued.wrapped().to_bytes());
    // The client puts them together and works alone.
    let issued = IssuedDataKey::from_parts(
        DataKey::from_material(KeyMaterial::from_bytes(plain)),
        WrappedDataKey::from_bytes(&wrapped).unwrap(),
        context(),
    );
    let mut message = Vec::new();
    let mut encryptor = Encryptor::begin_issued(issued, FrameLength::DEFAULT, &OsEntropy, &mut message).unwrap();
    encryptor.push(b"local", &mut message).unwrap();
    encryptor.finish(&mut message).unwrap();
    assert_eq!(decrypt(&key(), &[&message]), (b"local".to_vec(), Ok(())));
    // A reader asks the keeper to unwrap, and decrypts alone.
    let mut rest = message.as_slice();
    let header = HeaderReader::new().push(&mut rest).unwrap().unwrap();
    let data_key = header.wrapped_data_keys().next().unwrap().unwrap(&key().wrap(), header.context()).unwrap();
    let mut out = Vec::new();
    let mut decryptor = header.decrypt_with(&data_key).unwrap();
    decryptor.push(rest, &mut out).unwrap();
    assert!(decryptor.is_complete());
    decryptor.finish().unwrap();
    assert_eq!(out, b"local");
}

#[test]
fn a_wrong_data_key_is_refused_before_any_frame() {
    let message = encrypt(&key(), &context(), 64, &[&content(10)]);
    let header = HeaderReader::new().push(&mut message.as_slice()).unwrap().unwrap();
    let other = DataKey::from_material(KeyMaterial::from_bytes([0; 32]));
    assert_eq!(header.decrypt_with(&other).err(), Some(MessageError::Unauthentic));
}
