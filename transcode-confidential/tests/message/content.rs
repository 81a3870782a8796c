//! Content comes back, and nothing that is not wholly authentic passes for it.

use transcode_confidential::message::{EncryptionContext, FrameLength, HeaderReader, Malformed, MessageError};

use crate::sample::{Key, content, context, decrypt, encrypt, key, parts};

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
fn frame_lengths_are_between_one_byte_and_16_mib() {
    assert_eq!(FrameLength::new(0), Err(MessageError::FrameLength(0)));
    assert_eq!(FrameLength::new((16 << 20) + 1), Err(MessageError::FrameLength((16 << 20) + 1)));
    assert_eq!(FrameLength::new(16 << 20), Ok(FrameLength::MAX));
    assert_eq!(FrameLength::new(1).map(FrameLength::as_usize), Ok(1));
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
