//! Whatever single byte of a document is changed, it is refused: also in the header that no signature covers.
//!
//! Three genuine documents where `CONFIDENTIAL_CORPUS` names the corpus, and one mock document always. Each byte gets
//! three changes; all 255 with `CONFIDENTIAL_EVERY_CHANGE=1`, which takes minutes.

use std::{collections::BTreeMap, fs, path::PathBuf, thread};

use transcode_confidential::attestation::{ImagePolicy, Refusal, TrustRoot, UnverifiedDocument};

use crate::launched;

/// One with the definite payload map, one with the indefinite one, one with an additional register.
const GENUINE: [&str; 3] = [
    "production/20220915T174328Z_e470460515fb.cbor",
    "production/20260103T204107Z_9e038c2da8de.cbor",
    "production/20250429T103239Z_7b0ca130a8e2.cbor",
];

fn verify(document: &[u8], root: &TrustRoot) -> Result<(), Refusal> {
    UnverifiedDocument::parse(document)?.verify_archived(root, &ImagePolicy::danger_any_image()).map(drop)
}

/// How often each reason was given, over all changes of all bytes.
fn reasons(document: &[u8], root: &TrustRoot) -> BTreeMap<&'static str, usize> {
    verify(document, root).unwrap();
    let changes: Vec<u8> = match std::env::var_os("CONFIDENTIAL_EVERY_CHANGE") {
        Some(_) => (1..=255).collect(),
        None => vec![0x01, 0x20, 0xff],
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let of_part = |part: usize| {
        let mut reasons: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut changed = document.to_vec();
        for position in (part..document.len()).step_by(threads) {
            for change in &changes {
                changed[position] ^= change;
                match verify(&changed, root) {
                    Err(refusal) => *reasons.entry(refusal.reason()).or_default() += 1,
                    Ok(()) => panic!("byte {position} changed by {change:#04x} makes no difference"),
                }
                changed[position] ^= change;
            }
        }
        assert_eq!(changed, document);
        reasons
    };
    let parts = thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|part| {
                scope.spawn({
                    let of_part = &of_part;
                    move || of_part(part)
                })
            })
            .collect();
        running.into_iter().map(|part| part.join().unwrap()).collect::<Vec<_>>()
    });
    let mut total: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (reason, count) in parts.into_iter().flatten() {
        *total.entry(reason).or_default() += count;
    }
    assert_eq!(total.values().sum::<usize>(), document.len() * changes.len());
    total
}

#[test]
fn no_byte_of_a_mock_document_can_be_changed() {
    let enclave = launched();
    let reasons = reasons(&enclave.document(), &enclave.root());
    eprintln!("{reasons:?}");
    assert!(reasons.len() > 10, "{reasons:?}");
}

#[test]
fn no_byte_of_a_genuine_document_can_be_changed() {
    let Some(corpus) = std::env::var_os("CONFIDENTIAL_CORPUS") else {
        eprintln!("skipped: CONFIDENTIAL_CORPUS is not set");
        return;
    };
    for file in GENUINE {
        let document = fs::read(PathBuf::from(&corpus).join("attestation").join(file)).unwrap();
        let reasons = reasons(&document, &TrustRoot::aws());
        eprintln!("{file}: {reasons:?}");
        assert!(reasons.len() > 10, "{reasons:?}");
    }
}

#[test]
fn no_part_of_a_document_can_be_replaced() {
    use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

    let enclave = launched();
    let (document, root) = (enclave.document(), enclave.root());
    let edit = (any::<Index>(), 0..64_usize, proptest::collection::vec(any::<u8>(), 0..64));
    let outcome = TestRunner::default().run(&edit, |(start, length, with)| {
        let start = start.index(document.len());
        let end = (start + length).min(document.len());
        let edited = [&document[..start], &with, &document[end..]].concat();
        prop_assert_eq!(verify(&edited, &root).is_ok(), edited == document);
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn the_unsigned_header_byte_has_one_value() {
    let enclave = launched();
    let mut document = enclave.document();
    assert_eq!(document[6], 0xa0, "the empty unprotected map");
    for value in (0..=0xff).filter(|value| *value != 0xa0) {
        document[6] = value;
        assert!(verify(&document, &enclave.root()).is_err_and(|refusal| refusal.is_malformed()), "{value:#04x}");
    }
}
