//! A live document is fresh, answers the nonce, and was made for the purpose of who looks at it.

use std::time::Duration;

use enclave_app::nsm::{AttestationRequest, Nsm as _};
use transcode_confidential::{
    attestation::{ExpectedNonce, Freshness, Nonce, Purpose, Refusal, UnverifiedDocument, UserData},
    entropy::OsEntropy,
    ids::{Epoch, LogId},
    time::Timestamp,
};

use crate::{Launched, NOW, launched, reason};

fn answer_to(enclave: &Launched, nonce: Option<&[u8]>) -> Vec<u8> {
    let request = AttestationRequest { nonce: nonce.map(<[u8]>::to_vec), ..Default::default() };
    enclave.nsm.attest(request).unwrap()
}

fn live_at(enclave: &Launched, document: &[u8], now: Timestamp, freshness: Freshness) -> Result<(), Refusal> {
    let parsed = UnverifiedDocument::parse(document)?;
    parsed.verify_live(&enclave.root(), now, freshness, &enclave.image_policy()).map(drop)
}

#[test]
fn a_document_answers_the_nonce_that_was_sent_and_no_other() {
    let enclave = launched();
    let nonce = Nonce::generate(&OsEntropy).unwrap();
    let document = answer_to(&enclave, Some(nonce.as_bytes()));
    let (sent, mut one_bit_off) = (*nonce.as_bytes(), *nonce.as_bytes());
    one_bit_off[31] ^= 1;
    assert_eq!(reason(live_at(&enclave, &document, NOW, Freshness::with_nonce(nonce))), "verified");
    let other = Freshness::with_nonce(Nonce::derived(one_bit_off));
    assert_eq!(reason(live_at(&enclave, &document, NOW, other)), "nonce-mismatch");

    for (carried, expected) in [
        (Some([&sent[..], b"more"].concat()), "nonce-mismatch"),
        (Some(sent[..31].to_vec()), "nonce-mismatch"),
        (Some(Vec::new()), "nonce-mismatch"),
        (None, "nonce-missing"),
    ] {
        let document = answer_to(&enclave, carried.as_deref());
        let freshness = Freshness::with_nonce(Nonce::derived(sent));
        assert_eq!(reason(live_at(&enclave, &document, NOW, freshness)), expected);
    }
}

#[test]
fn age_and_the_difference_of_clocks_are_bounded_to_the_millisecond() {
    let enclave = launched();
    let document = answer_to(&enclave, None);
    let freshness = || Freshness {
        nonce: ExpectedNonce::Any,
        max_age: Duration::from_secs(300),
        future_tolerance: Duration::from_secs(1),
    };
    for (now, expected) in [
        (NOW.plus(Duration::from_millis(300_000)), "verified"),
        (NOW.plus(Duration::from_millis(300_001)), "too-old"),
        (NOW.minus(Duration::from_millis(1000)), "verified"),
        (NOW.minus(Duration::from_millis(1001)), "from-the-future"),
    ] {
        assert_eq!(reason(live_at(&enclave, &document, now, freshness())), expected, "{now}");
    }
}

#[test]
fn certificates_count_at_the_verifiers_time_even_where_any_age_is_accepted() {
    let enclave = launched();
    let document = answer_to(&enclave, None);
    let any = || Freshness { nonce: ExpectedNonce::Any, max_age: Duration::MAX, future_tolerance: Duration::MAX };
    let (three_hours, three_seconds, one) =
        (Duration::from_secs(10_800), Duration::from_secs(3), Duration::from_secs(1));
    for (now, expected) in [
        (NOW.plus(three_hours), "verified"),
        (NOW.plus(three_hours + one), "certificate-expired"),
        (NOW.minus(three_seconds), "verified"),
        (NOW.minus(three_seconds + one), "certificate-not-yet-valid"),
    ] {
        assert_eq!(reason(live_at(&enclave, &document, now, any())), expected, "{now}");
    }
}

#[test]
fn a_document_serves_its_own_purpose_only() {
    let enclave = launched();
    let log_id = LogId::new([9; 16]);
    let channel = UserData::Channel { log_id, epoch: Epoch(3) };
    let request = AttestationRequest { user_data: Some(channel.encode()), ..Default::default() };
    let verified = enclave.verify(&enclave.nsm.attest(request).unwrap()).unwrap();
    assert_eq!(verified.require_purpose(Purpose::Channel), Ok(channel));
    assert_eq!(verified.purpose(), Some(channel));
    for expected in [Purpose::Kms, Purpose::Epoch, Purpose::Head, Purpose::Caller] {
        let refusal = Refusal::WrongPurpose { expected, found: Purpose::Channel };
        assert_eq!(verified.require_purpose(expected), Err(refusal));
    }
    let purposeless = enclave.verify(&answer_to(&enclave, None)).unwrap();
    assert_eq!(purposeless.require_purpose(Purpose::Channel), Err(Refusal::PurposeMissing));
}
