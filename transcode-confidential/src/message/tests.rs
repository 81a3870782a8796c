//! What only somebody who holds the keys could forge, and what no message on the wire shows.

use std::sync::atomic::{AtomicU8, Ordering};

use proptest::prelude::*;

use super::{
    frame::{FrameCipher, FrameKind},
    header::write_header,
    primitives::{BulkKey, Nonce, ReferenceKey, Tag},
    suite::MessageKeys,
    *,
};
use crate::{
    entropy::{Entropy, EntropyError, OsEntropy},
    ids::{KeyId, KeyVersion},
    secret::KeyMaterial,
};

const FRAME: FrameLength = match FrameLength::new(100) {
    Ok(length) => length,
    Err(_) => FrameLength::DEFAULT,
};

/// A message by somebody who has the data key and does not keep the rules.
struct Forger {
    data_key: DataKey,
    id: MessageId,
    message: Vec<u8>,
    cipher: FrameCipher,
}

impl Forger {
    fn new(frame_length: FrameLength) -> Self {
        Self::with_commitment(frame_length, |_| ())
    }

    fn with_commitment(frame_length: FrameLength, change: impl Fn(&mut [u8; 32])) -> Self {
        let data_key = DataKey::from_material(KeyMaterial::from_bytes([9; 32]));
        let id = MessageId::new([4; 32]);
        let mut keys = MessageKeys::derive(&data_key, &id).unwrap();
        change(&mut keys.commitment.0);
        let (key_id, material) = ("k".parse().unwrap(), KeyMaterial::from_bytes([1; 32]));
        let wrap = WrappingKey { key_id: &key_id, version: KeyVersion(1), material: &material };
        let context = EncryptionContext::new();
        let wrapped = WrappedDataKey::wrap(&data_key, &wrap, &context, &OsEntropy).unwrap();
        let mut message = Vec::new();
        write_header(&keys, &id, &context, &wrapped, frame_length, &mut message).unwrap();
        Self { data_key, id, message, cipher: FrameCipher::new(keys.key, id) }
    }

    fn frame(mut self, kind: FrameKind, sequence: u32, content: &[u8]) -> Self {
        self.cipher.seal(kind, sequence, content, &mut self.message).unwrap();
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.message.extend_from_slice(bytes);
        self
    }

    fn read(&self) -> (Vec<u8>, Result<(), MessageError>) {
        let (mut rest, mut out) = (self.message.as_slice(), Vec::new());
        let header = HeaderReader::new().push(&mut rest).unwrap().unwrap();
        assert_eq!(header.message_id(), &self.id);
        let outcome = header.decrypt_with(&self.data_key).and_then(|mut decryptor| {
            decryptor.push(rest, &mut out)?;
            decryptor.finish()
        });
        (out, outcome)
    }
}

#[test]
fn the_forger_can_write_an_honest_message() {
    let honest = Forger::new(FRAME).frame(FrameKind::Regular, 1, &[7; 100]).frame(FrameKind::Final, 2, &[8; 100]);
    assert_eq!(honest.read(), ([[7; 100], [8; 100]].concat(), Ok(())));
}

#[test]
fn a_wrong_commitment_is_refused_even_under_a_right_header_tag() {
    for bit in [0, 255] {
        let forged = Forger::with_commitment(FRAME, |commitment| commitment[bit / 8] ^= 1 << (bit % 8));
        let forged = forged.frame(FrameKind::Final, 1, b"x");
        assert_eq!(forged.read(), (vec![], Err(MessageError::Unauthentic)));
    }
}

#[test]
fn an_authentic_frame_out_of_order_is_refused() {
    for (first, second, due) in [(2, 1, 1), (0, 1, 1), (1, 1, 2), (1, 3, 2)] {
        let forged =
            Forger::new(FRAME).frame(FrameKind::Regular, first, &[7; 100]).frame(FrameKind::Final, second, b"");
        let found = if due == 1 { first } else { second };
        let (out, outcome) = forged.read();
        assert_eq!(outcome, Err(Malformed::Sequence { expected: due, found }.into()));
        assert_eq!(out.len(), if due == 1 { 0 } else { 100 });
    }
}

#[test]
fn a_final_frame_longer_than_the_frame_length_is_refused_before_it_arrives() {
    let forged = Forger::new(FRAME).bytes(&[0xff; 4]).bytes(&[0, 0, 0, 1]).bytes(&Nonce([0; 12]).0[..11]).bytes(&[1]);
    let forged = forged.bytes(&101u32.to_be_bytes());
    assert_eq!(forged.read(), (vec![], Err(Malformed::FinalFrameLength(101).into())));
}

#[test]
fn an_iv_other_than_the_sequence_number_is_refused() {
    let forged = Forger::new(FRAME).bytes(&[0, 0, 0, 1]).bytes(&[0; 12]);
    assert_eq!(forged.read(), (vec![], Err(Malformed::FrameIv(1).into())));
}

#[test]
fn a_final_frame_taken_for_a_regular_one_is_refused() {
    let honest = Forger::new(FRAME).frame(FrameKind::Final, 1, &[7; 100]);
    let header = honest.message.len() - (4 + 4 + 12 + 4 + 100 + 16);
    let mut forged = Forger::new(FRAME);
    let relabelled = [&honest.message[header + 4..header + 20], &honest.message[header + 24..]].concat();
    forged.message.extend_from_slice(&relabelled);
    assert_eq!(forged.read(), (vec![], Err(MessageError::Unauthentic)));
}

#[test]
fn of_several_data_keys_under_one_version_any_may_open() {
    let (key_id, material): (KeyId, _) = ("k".parse().unwrap(), KeyMaterial::from_bytes([1; 32]));
    let wrap = |version| WrappingKey { key_id: &key_id, version: KeyVersion(version), material: &material };
    let (context, id, data_key) =
        (EncryptionContext::new(), MessageId::new([4; 32]), DataKey::from_material(KeyMaterial::from_bytes([9; 32])));
    let wrapped = |version, data_key| WrappedDataKey::wrap(data_key, &wrap(version), &context, &OsEntropy).unwrap();
    let (good, other_version) = (wrapped(1, &data_key).to_bytes(), wrapped(2, &data_key).to_bytes());
    let mut broken = good.clone();
    *broken.last_mut().unwrap() ^= 1;
    let keys = MessageKeys::derive(&data_key, &id).unwrap();
    let open = |copies: &[&[u8]]| {
        let mut body = [&[2, 4, 0x78], id.as_bytes().as_slice(), &[0, 0, 0, copies.len() as u8]].concat();
        body.extend_from_slice(&copies.concat());
        body.extend_from_slice(&[&[2], FRAME.as_u32().to_be_bytes().as_slice(), &keys.commitment.0].concat());
        let Tag(tag) = keys.header_tag(&body).unwrap();
        let header = HeaderReader::new().push(&mut [body.as_slice(), &tag].concat().as_slice()).unwrap().unwrap();
        header.unwrap(&wrap(1)).map(|_| ())
    };
    assert_eq!(open(&[&broken, &other_version, &good]), Ok(()));
    assert_eq!(open(&[&good, &broken, &other_version]), Ok(()));
    assert_eq!(open(&[&broken, &other_version]), Err(MessageError::Unauthentic));
    assert_eq!(open(&[&other_version, &other_version]), Err(MessageError::OtherKey));
}

#[test]
fn a_frame_of_another_message_under_the_same_keys_is_refused() {
    let (out, honest) = Forger::new(FRAME).frame(FrameKind::Final, 1, b"x").read();
    assert_eq!((out.as_slice(), honest), (b"x".as_slice(), Ok(())));
    let mut other = Forger::new(FRAME);
    let keys = MessageKeys::derive(&other.data_key, &other.id).unwrap();
    other.cipher = FrameCipher::new(keys.key, MessageId::new([5; 32]));
    assert_eq!(other.frame(FrameKind::Final, 1, b"x").read(), (vec![], Err(MessageError::Unauthentic)));
}

#[test]
fn a_message_ends_at_its_last_sequence_number_rather_than_wrap() {
    let mut encryptor = encryptor(FRAME);
    encryptor.next_is(u32::MAX - 1);
    let mut out = Vec::new();
    encryptor.push(&[0; 100], &mut out).unwrap();
    assert_eq!(encryptor.push(&[0; 100], &mut out), Err(MessageError::TooManyFrames));
    assert_eq!(encryptor.finish(&mut out), Err(MessageError::GivenUp));
    assert_eq!(out.len(), 100 + 32, "the frame that did not fit left nothing behind");
}

#[test]
fn a_declared_length_reserves_nothing() {
    let mut decryptor = Forger::new(FrameLength::MAX).decryptor();
    let mut out = Vec::new();
    decryptor.push(&[0, 0, 0, 1], &mut out).unwrap();
    decryptor.push(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], &mut out).unwrap();
    decryptor.push(&[0; 1000], &mut out).unwrap();
    assert!(decryptor.buffered_capacity() < 4096, "{}", decryptor.buffered_capacity());
    assert_eq!(out.capacity(), 0);
}

#[test]
fn the_decryptor_never_holds_more_than_one_frame() {
    let length = FrameLength::new(50_000).unwrap();
    let mut forger = Forger::new(length);
    let header = forger.message.len();
    for sequence in 1..4 {
        forger = forger.frame(FrameKind::Regular, sequence, &[0; 50_000]);
    }
    let message = forger.message.split_off(header);
    let mut decryptor = forger.decryptor();
    for piece in message.chunks(777) {
        decryptor.push(piece, &mut Vec::new()).unwrap();
        assert!(decryptor.buffered_capacity() <= 50_000 + 32, "{}", decryptor.buffered_capacity());
    }
}

#[test]
fn a_failing_random_source_creates_nothing() {
    struct Failing(AtomicU8);
    impl Entropy for Failing {
        fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
            out.fill(1);
            if self.0.fetch_sub(1, Ordering::Relaxed) == 0 { Err(EntropyError) } else { Ok(()) }
        }
    }
    let (key_id, material): (KeyId, _) = ("k".parse().unwrap(), KeyMaterial::from_bytes([1; 32]));
    let wrap = WrappingKey { key_id: &key_id, version: KeyVersion(1), material: &material };
    for failing_call in 0..4 {
        let mut out = Vec::new();
        let failing = Failing(AtomicU8::new(failing_call));
        let begun = Encryptor::begin(&wrap, &EncryptionContext::new(), FRAME, &failing, &mut out);
        match failing_call {
            0..3 => {
                assert_eq!(begun.err(), Some(MessageError::Entropy(EntropyError)));
                assert!(out.is_empty());
            }
            _ => assert!(begun.is_ok(), "data key, IV and message id are all that is drawn"),
        }
    }
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let secret = "5, 5, 5";
    let material = || KeyMaterial::from_bytes([5; 32]);
    let (key_id, holder): (KeyId, _) = ("k".parse().unwrap(), material());
    let wrap = WrappingKey { key_id: &key_id, version: KeyVersion(1), material: &holder };
    let issued = IssuedDataKey::issue(&wrap, &EncryptionContext::new(), &OsEntropy).unwrap();
    let texts = [
        format!("{wrap:?}"),
        format!("{:?}", DataKey::from_material(material())),
        format!("{:?}", BulkKey::new(&material()).unwrap()),
        format!("{:?}", ReferenceKey::new(&material())),
        format!("{:?}", issued.data_key()),
    ];
    for text in texts {
        assert!(!text.contains(secret) && text.contains("secret"), "{text}");
    }
    let mut encryptor = encryptor(FRAME);
    encryptor.push(&[5; 9], &mut Vec::new()).unwrap();
    assert!(!format!("{encryptor:?}").contains(secret), "{encryptor:?}");
}

proptest! {
    #[test]
    fn both_ciphers_give_the_same_bytes_and_open_each_other(
        key: [u8; 32],
        iv: [u8; 12],
        aad in prop::collection::vec(any::<u8>(), 0..100),
        plaintext in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let material = KeyMaterial::from_bytes(key);
        let (reference, bulk) = (ReferenceKey::new(&material), BulkKey::new(&material).unwrap());
        let (mut by_reference, mut by_bulk) = (plaintext.clone(), plaintext.clone());
        let reference_tag = reference.seal(Nonce(iv), &aad, &mut by_reference).unwrap();
        let bulk_tag = bulk.seal(Nonce(iv), &aad, &mut by_bulk).unwrap();
        prop_assert_eq!(&by_reference, &by_bulk);
        prop_assert_eq!(reference_tag.0, bulk_tag.0);
        bulk.open(Nonce(iv), &aad, &mut by_reference, reference_tag).unwrap();
        reference.open(Nonce(iv), &aad, &mut by_bulk, bulk_tag).unwrap();
        prop_assert_eq!(&by_reference, &plaintext);
        prop_assert_eq!(&by_bulk, &plaintext);
    }
}

fn encryptor(length: FrameLength) -> Encryptor {
    let (key_id, material): (KeyId, _) = ("k".parse().unwrap(), KeyMaterial::from_bytes([1; 32]));
    let wrap = WrappingKey { key_id: &key_id, version: KeyVersion(1), material: &material };
    Encryptor::begin(&wrap, &EncryptionContext::new(), length, &OsEntropy, &mut Vec::new()).unwrap()
}

impl Forger {
    fn decryptor(&self) -> Decryptor {
        let header = HeaderReader::new().push(&mut self.message.as_slice()).unwrap().unwrap();
        header.decrypt_with(&self.data_key).unwrap()
    }
}
