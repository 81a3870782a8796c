//! Encryption contexts: how long they may be, and where one is demanded.

use transcode_confidential::message::{ContextError, EncryptionContext, HeaderReader, MessageError};

use crate::sample::{content, context, encrypt, key};

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
