//! Messages that are encrypted anew under another version of their key.

use transcode_confidential::{
    entropy::OsEntropy,
    message::{HeaderReader, Malformed, MessageError, Reencryptor},
};

use crate::sample::{Key, content, context, decrypt, encrypt, key, parts};

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
