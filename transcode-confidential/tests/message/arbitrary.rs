//! What holds whatever the message, however it is cut up, and whatever is done to it.

use proptest::{collection::vec, prelude::*, sample::Index};
use transcode_confidential::{
    entropy::OsEntropy,
    message::{EncryptionContext, HeaderReader, IssuedDataKey, Malformed, WrappedDataKey},
};

use crate::sample::{content, context, cut, decrypt, encrypt, key, parts};

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
