//! Messages as their readers and writers see them, and everything that a reader must refuse.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

use std::ops::Range;

use proptest::{collection::vec, prelude::*, sample::Index};
use transcode_confidential::{
    entropy::OsEntropy,
    ids::{KeyId, KeyVersion},
    message::{
        ContextError, DataKey, EncryptedDataKey, EncryptionContext, Encryptor, FrameLength, HeaderReader,
        IssuedDataKey, Malformed, MessageError, ParsedHeader, Reencryptor, WrappedDataKey, WrappingKey,
    },
    secret::KeyMaterial,
};

struct Key {
    id: KeyId,
    version: KeyVersion,
    material: KeyMaterial,
}

impl Key {
    fn new(id: &str, version: u32, byte: u8) -> Self {
        Self { id: id.parse().unwrap(), version: KeyVersion(version), material: KeyMaterial::from_bytes([byte; 32]) }
    }

    fn wrap(&self) -> WrappingKey<'_> {
        WrappingKey { key_id: &self.id, version: self.version, material: &self.material }
    }
}

fn key() -> Key {
    Key::new("content-key-1", 7, 0x11)
}

fn context() -> EncryptionContext {
    EncryptionContext::from_pairs([("content", "episode-7"), ("studio", "Ünïversal")]).unwrap()
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// Encrypts `pieces`, one push each.
fn encrypt(key: &Key, context: &EncryptionContext, frame: u32, pieces: &[&[u8]]) -> Vec<u8> {
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
fn decrypt(key: &Key, pieces: &[&[u8]]) -> (Vec<u8>, Result<(), MessageError>) {
    let mut out = Vec::new();
    let outcome = decrypt_into(key, pieces, &mut out);
    (out, outcome)
}

fn decrypt_into(key: &Key, pieces: &[&[u8]], out: &mut Vec<u8>) -> Result<(), MessageError> {
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

fn cut<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

/// The header, then each frame.
fn parts(message: &[u8], frame: usize) -> Vec<Range<usize>> {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_message_comes_back_whatever_the_chunking(
        length in 0usize..5000,
        frame in prop_oneof![1u32..50, 50u32..6000],
        writes in vec(any::<Index>(), 0..8),
        reads in vec(any::<Index>(), 0..12),
    ) {
        let plaintext = content(length);
        let message = encrypt(&key(), &context(), frame, &cut(&plaintext, &writes));
        prop_assert_eq!(decrypt(&key(), &cut(&message, &reads)), (plaintext, Ok(())));
    }

    #[test]
    fn a_changed_bit_is_refused_and_only_what_precedes_it_is_released(
        length in 0usize..1000,
        frame in 1u32..400,
        at: Index,
        bit in 0u8..8,
        reads in vec(any::<Index>(), 0..4),
    ) {
        let plaintext = content(length);
        let mut message = encrypt(&key(), &context(), frame, &[&plaintext]);
        let at = at.index(message.len());
        message[at] ^= 1 << bit;
        let (released, outcome) = decrypt(&key(), &cut(&message, &reads));
        prop_assert!(outcome.is_err());
        let part = parts_before(&plaintext, &message, frame, at);
        prop_assert!(released.len() <= part, "{} of {}", released.len(), part);
        prop_assert!(plaintext.starts_with(&released));
    }

    #[test]
    fn a_truncated_message_is_refused(length in 0usize..1000, frame in 1u32..400, at: Index) {
        let plaintext = content(length);
        let message = encrypt(&key(), &context(), frame, &[&plaintext]);
        let (released, outcome) = decrypt(&key(), &[&message[..at.index(message.len())]]);
        prop_assert_eq!(outcome, Err(Malformed::Truncated.into()));
        prop_assert!(plaintext.starts_with(&released));
    }

    #[test]
    fn bytes_after_the_end_are_refused(trailer in vec(any::<u8>(), 1..50), apart: bool) {
        let message = encrypt(&key(), &context(), 64, &[&content(100)]);
        let joined = [message.as_slice(), &trailer].concat();
        let pieces: &[&[u8]] = if apart { &[&message, &trailer] } else { &[&joined] };
        prop_assert_eq!(decrypt(&key(), pieces), (content(100), Err(Malformed::Trailing.into())));
    }

    #[test]
    fn frames_in_another_order_or_number_are_refused(from in 0usize..6, to in 0usize..6, drop: bool, copy: bool) {
        prop_assume!(from != to || drop || copy);
        let message = encrypt(&key(), &context(), 10, &[&content(55)]);
        let mut order: Vec<&[u8]> = parts(&message, 10).into_iter().map(|part| &message[part]).collect();
        prop_assert_eq!(order.len(), 7, "a header, five full frames, and the rest");
        let frame = if copy { order[1 + from] } else { order.remove(1 + from) };
        if copy || !drop {
            order.insert(1 + to, frame);
        }
        let shuffled = order.concat();
        prop_assume!(shuffled != message);
        let (released, outcome) = decrypt(&key(), &[&shuffled]);
        prop_assert!(outcome.is_err());
        prop_assert!(content(55).starts_with(&released));
    }

    #[test]
    fn arbitrary_bytes_are_an_error_and_no_panic(mut bytes in vec(any::<u8>(), 0..300), like_ours: bool) {
        if like_ours {
            bytes.splice(..bytes.len().min(3), [2, 4, 0x78]);
        }
        prop_assert!(decrypt(&key(), &[&bytes]).1.is_err());
    }

    #[test]
    fn a_wrapped_data_key_survives_its_bytes_and_no_other_bytes_are_read(cut_at: Index, at: Index, bit in 0u8..8) {
        let issued = IssuedDataKey::issue(&key().wrap(), &context(), &OsEntropy).unwrap();
        let mut bytes = issued.wrapped().to_bytes();
        prop_assert_eq!(&WrappedDataKey::from_bytes(&bytes).unwrap(), issued.wrapped());
        prop_assert!(WrappedDataKey::from_bytes(&bytes[..cut_at.index(bytes.len())]).is_err());
        prop_assert!(WrappedDataKey::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let unwrapped = WrappedDataKey::from_bytes(&bytes).and_then(|key_| key_.unwrap(&key().wrap(), &context()));
        prop_assert!(unwrapped.is_err());
    }

    #[test]
    fn a_context_survives_its_message(pairs in prop::collection::btree_map("\\PC{0,20}", "\\PC{0,20}", 0..10)) {
        prop_assume!(!pairs.keys().any(|key| key.starts_with("aws-crypto-")));
        let context = EncryptionContext::from_pairs(pairs).unwrap();
        let message = encrypt(&key(), &context, 10, &[]);
        let header = HeaderReader::new().push(&mut message.as_slice()).unwrap().unwrap();
        prop_assert_eq!(header.context(), &context);
        prop_assert!(header.unwrap(&key().wrap()).is_ok());
    }
}

/// Number of plaintext bytes in whole frames before byte `at` of the message, which has one changed bit there.
fn parts_before(plaintext: &[u8], message: &[u8], frame: u32, at: usize) -> usize {
    let full = plaintext.len() / frame as usize;
    let last = 4 + 4 + 12 + 4 + plaintext.len() % frame as usize + 16;
    let header = message.len() - last - full * (frame as usize + 32);
    let frames = at.saturating_sub(header) / (frame as usize + 32);
    frames.min(full) * frame as usize
}

#[test]
fn content_of_zero_one_and_whole_frames_comes_back() {
    for frame in [1, 2, 16, 100] {
        for length in [0, 1, frame - 1, frame, frame + 1, 2 * frame, 3 * frame] {
            let plaintext = content(length as usize);
            let message = encrypt(&key(), &EncryptionContext::new(), frame, &[&plaintext]);
            assert_eq!(decrypt(&key(), &[&message]), (plaintext, Ok(())), "{length} bytes in frames of {frame}");
        }
    }
}

#[test]
fn a_message_read_a_byte_at_a_time_comes_back() {
    let message = encrypt(&key(), &context(), 50, &[&content(333)]);
    let bytes: Vec<&[u8]> = message.chunks(1).collect();
    assert_eq!(decrypt(&key(), &bytes), (content(333), Ok(())));
}

#[test]
fn the_longest_frames_come_back() {
    let plaintext = content(FrameLength::MAX.as_usize() + 1);
    let message = encrypt(&key(), &EncryptionContext::new(), FrameLength::MAX.as_u32(), &[&plaintext]);
    let (released, outcome) = decrypt(&key(), &message.chunks(100_000).collect::<Vec<_>>());
    assert_eq!(outcome, Ok(()));
    assert!(released == plaintext);
}

#[test]
fn every_single_bit_of_a_message_matters() {
    let message = encrypt(&key(), &context(), 5, &[&content(12)]);
    for bit in 0..message.len() * 8 {
        let mut changed = message.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(decrypt(&key(), &[&changed]).1.is_err(), "bit {bit}");
    }
}

#[test]
fn another_key_version_or_secret_does_not_open_a_message() {
    let message = encrypt(&key(), &context(), 64, &[&content(10)]);
    let outcome = |other: Key| decrypt(&other, &[&message]);
    assert_eq!(outcome(Key::new("content-key-2", 7, 0x11)), (vec![], Err(MessageError::OtherKey)));
    assert_eq!(outcome(Key::new("content-key-1", 8, 0x11)), (vec![], Err(MessageError::OtherKey)));
    assert_eq!(outcome(Key::new("content-key-1", 7, 0x12)), (vec![], Err(MessageError::Unauthentic)));
}

#[test]
fn a_header_of_one_message_does_not_lead_into_another() {
    let (one, two) =
        (encrypt(&key(), &context(), 20, &[&content(50)]), encrypt(&key(), &context(), 20, &[&content(50)]));
    let header = parts(&one, 20)[0].end;
    let spliced = [&one[..header], &two[header..]].concat();
    assert_eq!(decrypt(&key(), &[&spliced]), (vec![], Err(MessageError::Unauthentic)));
}

#[test]
fn no_two_messages_are_alike() {
    let (one, two) =
        (encrypt(&key(), &context(), 64, &[&content(10)]), encrypt(&key(), &context(), 64, &[&content(10)]));
    assert_eq!(one.len(), two.len());
    let same = one.iter().zip(&two).filter(|(one, two)| one == two).count();
    assert!(same < one.len() - 32 - 12 - 48 - 32 - 16, "{same}");
}

#[test]
fn a_demanded_context_must_be_there() {
    let message = encrypt(&key(), &context(), 64, &[&content(10)]);
    let header = HeaderReader::new().push(&mut message.as_slice()).unwrap().unwrap();
    let pairs = |pairs: &[(&str, &str)]| EncryptionContext::from_pairs(pairs.iter().copied()).unwrap();
    assert_eq!(header.require_context(&EncryptionContext::new()), Ok(()));
    assert_eq!(header.require_context(&pairs(&[("content", "episode-7")])), Ok(()));
    assert_eq!(header.require_context(&context()), Ok(()));
    assert_eq!(header.require_context(&pairs(&[("content", "episode-8")])), Err(MessageError::OtherContext));
    assert_eq!(header.require_context(&pairs(&[("other", "episode-7")])), Err(MessageError::OtherContext));
}

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

fn reencrypt(message: &[u8], from: &Key, to: &Key) -> Result<Vec<u8>, MessageError> {
    let mut rest = message;
    let header = HeaderReader::new().push(&mut rest)?.ok_or(Malformed::Truncated)?;
    let mut out = Vec::new();
    let mut reencryptor = Reencryptor::begin(header, &from.wrap(), &to.wrap(), &OsEntropy, &mut out)?;
    for piece in rest.chunks(7) {
        reencryptor.push(piece, &mut out)?;
    }
    reencryptor.finish(&mut out).map(|()| out)
}

#[test]
fn a_message_that_is_encrypted_anew_reads_under_the_new_version_only() {
    let (old, new) = (key(), Key::new("content-key-1", 8, 0x22));
    for length in [0, 1, 63, 64, 65, 200] {
        let message = encrypt(&old, &context(), 64, &[&content(length)]);
        let anew = reencrypt(&message, &old, &new).unwrap();
        assert_eq!(decrypt(&new, &[&anew]), (content(length), Ok(())));
        assert_eq!(decrypt(&old, &[&anew]), (vec![], Err(MessageError::OtherKey)));
        let header = |message: &[u8]| HeaderReader::new().push(&mut &*message).unwrap().unwrap();
        assert_eq!(header(&anew).context(), header(&message).context());
        assert_eq!(header(&anew).frame_length(), header(&message).frame_length());
        assert_ne!(header(&anew).message_id(), header(&message).message_id(), "no two headers share a frame key");
    }
}

#[test]
fn a_message_that_is_not_whole_and_authentic_is_never_finished_anew() {
    let (old, new) = (key(), Key::new("content-key-1", 8, 0x22));
    let message = encrypt(&old, &context(), 64, &[&content(200)]);
    for at in [parts(&message, 64)[0].end - 1, message.len() / 2, message.len() - 1] {
        let mut changed = message.clone();
        changed[at] ^= 1;
        assert!(reencrypt(&changed, &old, &new).is_err(), "byte {at}");
        assert!(reencrypt(&message[..at], &old, &new).is_err(), "cut at {at}");
    }
    assert_eq!(reencrypt(&message, &new, &new), Err(MessageError::OtherKey));
}

#[test]
fn a_decryptor_that_refused_once_refuses_ever_after() {
    let mut message = encrypt(&key(), &context(), 10, &[&content(25)]);
    let ranges = parts(&message, 10);
    message[ranges[2].start + 20] ^= 1;
    let mut rest = message.as_slice();
    let header = HeaderReader::new().push(&mut rest).unwrap().unwrap();
    let mut decryptor = header.unwrap(&key().wrap()).unwrap();
    let mut out = Vec::new();
    assert_eq!(decryptor.push(rest, &mut out), Err(MessageError::Unauthentic));
    assert_eq!(out, content(10), "the first frame was authentic");
    assert_eq!(decryptor.push(&message[ranges[3].clone()], &mut out), Err(MessageError::GivenUp));
    assert_eq!(decryptor.finish(), Err(MessageError::GivenUp));
    assert_eq!(out, content(10));
}

#[test]
fn a_header_reader_that_refused_once_refuses_ever_after() {
    let mut reader = HeaderReader::new();
    assert_eq!(reader.push(&mut b"\x01".as_slice()).err(), Some(Malformed::Version(1).into()));
    assert_eq!(reader.push(&mut b"\x02".as_slice()).err(), Some(Malformed::Version(1).into()));
    assert_eq!(reader.finish(), Malformed::Version(1).into());
}

#[test]
fn the_context_of_a_caller_is_bounded() {
    let pairs = |count: usize, value: &str| {
        EncryptionContext::from_pairs((0..count).map(|number| (format!("{number:02}"), value.to_owned())))
    };
    assert_eq!(pairs(64, "").map(|context| context.len()), Ok(64));
    assert_eq!(pairs(65, "").err(), Some(ContextError::TooManyPairs));
    // 2 for the count, and for each pair 4 for the lengths and 2 for the key.
    let longest = (8192 - 2) / 10 - 6;
    assert_eq!(pairs(10, &"v".repeat(longest)).map(|context| context.serialize().len()), Ok(8192));
    assert_eq!(pairs(10, &"v".repeat(longest + 1)).err(), Some(ContextError::TooLong));
    let reserved = [("aws-crypto-", "x"), ("aws-crypto-ec:k", "x")];
    for pair in reserved {
        assert_eq!(EncryptionContext::from_pairs([pair]).err(), Some(ContextError::ReservedKey));
    }
    assert!(EncryptionContext::from_pairs([("aws-cryptography", "x")]).is_ok());
    assert_eq!(EncryptionContext::from_pairs([("a", "1"), ("a", "1")]).err(), Some(ContextError::DuplicateKey));
}

#[test]
fn a_context_from_json_is_held_to_the_same_limits() {
    let read = serde_json::from_str::<EncryptionContext>;
    assert_eq!(read(r#"{"content":"episode-7","studio":"Ünïversal"}"#).unwrap(), context());
    assert!(read(r#"{"aws-crypto-public-key":"x"}"#).is_err());
    assert!(read(&format!(r#"{{"a":"{}"}}"#, "v".repeat(8192))).is_err());
}

#[test]
fn frame_lengths_are_between_one_byte_and_16_mib() {
    assert_eq!(FrameLength::new(0), Err(MessageError::FrameLength(0)));
    assert_eq!(FrameLength::new((16 << 20) + 1), Err(MessageError::FrameLength((16 << 20) + 1)));
    assert_eq!(FrameLength::new(16 << 20), Ok(FrameLength::MAX));
    assert_eq!(FrameLength::new(1).map(FrameLength::as_usize), Ok(1));
}

#[test]
fn a_header_reader_gives_one_header() {
    let message = encrypt(&key(), &context(), 10, &[]);
    let (mut reader, mut rest) = (HeaderReader::new(), message.as_slice());
    assert!(reader.push(&mut rest).unwrap().is_some());
    assert_eq!(reader.push(&mut message.as_slice()).err(), Some(MessageError::GivenUp));
}

/// A header written by hand, field by field, so that any of them can be wrong.
struct Header {
    version: u8,
    suite: u16,
    context: Vec<u8>,
    data_keys: u16,
    data_key: Vec<u8>,
    content_type: u8,
    frame_length: u32,
}

impl Header {
    fn right() -> Self {
        let issued = IssuedDataKey::issue(&key().wrap(), &EncryptionContext::new(), &OsEntropy).unwrap();
        Self {
            version: 2,
            suite: 0x0478,
            context: vec![],
            data_keys: 1,
            data_key: issued.wrapped().to_bytes(),
            content_type: 2,
            frame_length: 4096,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.version];
        bytes.extend(self.suite.to_be_bytes());
        bytes.extend([0; 32]);
        bytes.extend((self.context.len() as u16).to_be_bytes());
        bytes.extend(&self.context);
        bytes.extend(self.data_keys.to_be_bytes());
        bytes.extend(self.data_key.repeat(self.data_keys.into()));
        bytes.push(self.content_type);
        bytes.extend(self.frame_length.to_be_bytes());
        bytes.extend([0; 32 + 16]);
        bytes
    }

    fn read(&self) -> Result<Vec<EncryptedDataKey>, MessageError> {
        let bytes = self.to_bytes();
        let header = HeaderReader::new().push(&mut bytes.as_slice())?.expect("all of it is there");
        Ok(header.encrypted_data_keys().to_vec())
    }
}

fn data_key(provider: &[u8], info: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    [provider, info, ciphertext]
        .iter()
        .flat_map(|field| [&(field.len() as u16).to_be_bytes(), *field].concat())
        .collect()
}

fn info(name: &str, tag_bits: u32, iv_length: u32, iv: &[u8]) -> Vec<u8> {
    [name.as_bytes(), &tag_bits.to_be_bytes(), &iv_length.to_be_bytes(), iv].concat()
}

#[test]
fn a_header_that_is_right_is_read() {
    let read = Header::right().read().unwrap();
    assert!(matches!(read.as_slice(), [EncryptedDataKey::Ours(ours)] if ours.version() == KeyVersion(7)));
    let eight = Header { data_keys: 8, ..Header::right() };
    assert_eq!(eight.read().map(|keys| keys.len()), Ok(8));
}

#[test]
fn headers_of_other_formats_suites_and_content_types_are_refused() {
    let refusal = |header: Header| header.read().unwrap_err();
    assert_eq!(refusal(Header { version: 1, ..Header::right() }), Malformed::Version(1).into());
    for suite in [0x0014, 0x0178, 0x0214, 0x0346, 0x0378, 0x0578] {
        assert_eq!(refusal(Header { suite, ..Header::right() }), Malformed::Suite(suite).into());
    }
    for content_type in [0, 1, 3] {
        let header = Header { content_type, ..Header::right() };
        assert_eq!(refusal(header), Malformed::ContentType(content_type).into());
    }
    for frame_length in [0, (16 << 20) + 1, u32::MAX] {
        let header = Header { frame_length, ..Header::right() };
        assert_eq!(refusal(header), Malformed::FrameLength(frame_length).into());
    }
    for data_keys in [0, 9, u16::MAX] {
        let header = Header { data_keys, data_key: vec![], ..Header::right() };
        assert_eq!(refusal(header), Malformed::DataKeyCount(data_keys).into());
    }
}

#[test]
fn a_data_key_of_another_provider_is_carried_and_one_of_ours_must_have_our_form() {
    let read = |data_key: Vec<u8>| Header { data_key, ..Header::right() }.read();
    let foreign = EncryptedDataKey::Foreign { provider_id: "aws-kms".into() };
    assert_eq!(read(data_key(b"aws-kms", b"arn:aws:kms:eu-west-1:1:key/1", &[0; 184])), Ok(vec![foreign]));
    let ours = |info: &[u8], ciphertext: &[u8]| read(data_key(b"transcode-confidential", info, ciphertext));
    assert!(ours(&info("k#1", 128, 12, &[0; 12]), &[0; 48]).is_ok());
    assert!(ours(&info("k#4294967295", 128, 12, &[0; 12]), &[0; 48]).is_ok());
    let bad_infos = [
        info("k#1", 96, 12, &[0; 12]),
        info("k#1", 128, 16, &[0; 16]),
        info("k#1", 128, 12, &[0; 11]),
        info("k#1", 128, 12, &[0; 13]),
        info("k", 128, 12, &[0; 12]),
        info("#1", 128, 12, &[0; 12]),
        info("k#", 128, 12, &[0; 12]),
        info("k#01", 128, 12, &[0; 12]),
        info("k#+1", 128, 12, &[0; 12]),
        info("k#4294967296", 128, 12, &[0; 12]),
        info("k#1#1", 128, 12, &[0; 12]),
        info("k/1#1", 128, 12, &[0; 12]),
        info(&format!("{}#1", "k".repeat(129)), 128, 12, &[0; 12]),
        vec![],
    ];
    for bad in bad_infos {
        assert_eq!(ours(&bad, &[0; 48]), Err(Malformed::ProviderInfo.into()), "{bad:?}");
    }
    for length in [0, 32, 47, 49] {
        let outcome = ours(&info("k#1", 128, 12, &[0; 12]), &vec![0; length]);
        assert_eq!(outcome, Err(Malformed::ProviderInfo.into()), "{length}");
    }
}

#[test]
fn fields_of_a_data_key_are_bounded() {
    let read = |data_key: Vec<u8>| Header { data_key, ..Header::right() }.read();
    assert!(read(data_key(&[b'p'; 128], &[0; 2048], &[0; 2048])).is_ok());
    for oversized in [
        data_key(&[b'p'; 129], b"", b""),
        data_key(b"p", &[0; 2049], b""),
        data_key(b"p", b"", &[0; 2049]),
        data_key(b"\xff\xfe", b"", b""),
    ] {
        assert_eq!(read(oversized), Err(Malformed::DataKeyField.into()));
    }
}

#[test]
fn only_the_canonical_serialization_of_a_context_is_read() {
    let pair = |key: &[u8], value: &[u8]| {
        [&(key.len() as u16).to_be_bytes(), key, &(value.len() as u16).to_be_bytes(), value].concat()
    };
    let context = |count: u16, pairs: &[Vec<u8>]| [count.to_be_bytes().to_vec(), pairs.concat()].concat();
    let read = |context: Vec<u8>| Header { context, ..Header::right() }.read().map(|_| ());
    let refused = |error: ContextError| Err(Malformed::Context(error).into());
    let (a, b) = (pair(b"a", b"1"), pair(b"b", b"2"));
    assert_eq!(read(context(2, &[a.clone(), b.clone()])), Ok(()));
    assert_eq!(read(context(2, &[b.clone(), a.clone()])), refused(ContextError::NotCanonical));
    assert_eq!(read(context(2, &[a.clone(), a.clone()])), refused(ContextError::DuplicateKey));
    assert_eq!(read(context(0, &[])), refused(ContextError::NotCanonical));
    assert_eq!(read(context(1, &[a.clone(), b.clone()])), refused(ContextError::NotCanonical));
    assert_eq!(read(context(3, &[a.clone(), b])), refused(ContextError::NotCanonical));
    assert_eq!(read(vec![0]), refused(ContextError::NotCanonical));
    assert_eq!(read(context(1, &[pair(b"\xff", b"")])), refused(ContextError::NotUtf8));
    assert_eq!(read(context(1, &[pair(b"aws-crypto-public-key", b"x")])), refused(ContextError::ReservedKey));
    let many: Vec<_> = (0..65).map(|n| pair(format!("{n:02}").as_bytes(), b"")).collect();
    assert_eq!(read(context(65, &many)), refused(ContextError::TooManyPairs));
    assert_eq!(read(context(1, &[pair(b"a", &[b'v'; 8192])])), refused(ContextError::TooLong));
}

#[test]
fn the_longest_header_is_read_and_nothing_beyond_it_is_taken() {
    let longest = data_key(&[b'p'; 128], &[0; 2048], &[0; 2048]);
    let pair = [[0, 1, 0, 1, b'k', 0x1f, 0xf9].as_slice(), &[b'v'; 0x1ff9]].concat();
    let header = Header { data_key: longest, data_keys: 8, context: pair, ..Header::right() };
    assert_eq!((header.context.len(), header.to_bytes().len()), (8192, ParsedHeader::MAX_BYTES));
    assert_eq!(header.read().map(|keys| keys.len()), Ok(8));
    let message = encrypt(&key(), &context(), 64, &[&content(10)]);
    let (mut reader, mut taken) = (HeaderReader::new(), 0);
    for byte in message.chunks(1) {
        taken += 1;
        if reader.push(&mut &*byte).unwrap().is_some() {
            break;
        }
    }
    assert_eq!(taken, parts(&message, 64)[0].end);
}

#[test]
fn every_error_has_a_stable_name() {
    for (error, reason, malformed) in [
        (MessageError::Unauthentic, "unauthentic", false),
        (MessageError::OtherKey, "other-key", false),
        (MessageError::OtherContext, "other-context", false),
        (Malformed::Truncated.into(), "truncated", true),
        (Malformed::Sequence { expected: 1, found: 2 }.into(), "frame-sequence", true),
    ] {
        assert_eq!((error.reason(), error.is_malformed()), (reason, malformed));
    }
}
