//! Headers written by hand: what is read, and what is refused under which name.

use transcode_confidential::{
    entropy::OsEntropy,
    ids::KeyVersion,
    message::{
        ContextError, EncryptedDataKey, EncryptionContext, HeaderReader, IssuedDataKey, Malformed, MessageError,
        ParsedHeader,
    },
};

use crate::sample::{content, context, encrypt, key, parts};

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
fn a_header_reader_gives_one_header() {
    let message = encrypt(&key(), &context(), 10, &[]);
    let (mut reader, mut rest) = (HeaderReader::new(), message.as_slice());
    assert!(reader.push(&mut rest).unwrap().is_some());
    assert_eq!(reader.push(&mut message.as_slice()).err(), Some(MessageError::GivenUp));
}

#[test]
fn a_header_reader_that_refused_once_refuses_ever_after() {
    let mut reader = HeaderReader::new();
    assert_eq!(reader.push(&mut b"\x01".as_slice()).err(), Some(Malformed::Version(1).into()));
    assert_eq!(reader.push(&mut b"\x02".as_slice()).err(), Some(Malformed::Version(1).into()));
    assert_eq!(reader.finish(), Malformed::Version(1).into());
}
