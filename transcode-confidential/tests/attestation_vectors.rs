//! One document of the mock hypervisor as files, with its root and measurements: whoever writes another verifier can
//! start from these.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use std::time::Duration;

use transcode_confidential::{
    attestation::{
        Freshness, ImagePolicy, ImageVerdict, Measurements, Nonce, PcrIndex, PcrValue, Purpose, TrustRoot,
        UnverifiedDocument, UserData,
    },
    ids::{Epoch, LogId},
    time::Timestamp,
};

const DOCUMENT: &[u8] = include_bytes!("vectors/attestation/channel.cbor");
const ROOT: &[u8] = include_bytes!("vectors/attestation/root.pem");
const MEASUREMENTS: &[u8] = include_bytes!("vectors/attestation/measurements.json");
/// 2026-01-31T12:00:00Z.
const MADE_AT: Timestamp = Timestamp::from_secs(1_769_860_800);

#[test]
fn the_document_verifies_and_says_what_it_says() {
    let root = TrustRoot::from_pem(ROOT).unwrap();
    let policy = ImagePolicy::Expect(Measurements::from_json(MEASUREMENTS).unwrap());
    let sent = Nonce::derived(std::array::from_fn(|index| index as u8));
    let ten_seconds_later = MADE_AT.plus(Duration::from_secs(10));
    let document = UnverifiedDocument::parse(DOCUMENT)
        .unwrap()
        .verify_live(&root, ten_seconds_later, Freshness::with_nonce(sent), &policy)
        .unwrap();
    let log_id = LogId::new(*b"an example of id");
    assert_eq!(document.timestamp(), MADE_AT);
    assert_eq!(document.image(), &ImageVerdict::Expected { label: "1.0".to_owned() });
    assert_eq!(document.require_purpose(Purpose::Channel), Ok(UserData::Channel { log_id, epoch: Epoch(1) }));
    assert_eq!(document.public_key().map(<[u8]>::len), Some(120));
    let log_register = document.pcrs().get(PcrIndex::FIRST_OWN);
    assert_eq!(log_register, Some(&PcrValue::ZERO.extended(log_id.as_bytes())));
}
