//! The mock NSM behaves as the device does, and writes what the device writes.

use std::time::Duration;

use coset::{CborSerializable as _, iana};
use enclave_app::nsm::{AttestationRequest, Nsm as _, NsmError};
use testkit::nsm::{Form, MockImage, Mode};
use transcode_confidential::{
    attestation::{ImagePolicy, ImageVerdict, PcrIndex, PcrValue, Refusal, TrustRoot, UnverifiedDocument},
    time::Clock as _,
};

use crate::{NOW, launched, reason, request};

fn own(index: u8) -> PcrIndex {
    PcrIndex::new(index).unwrap()
}

#[test]
fn a_document_verifies_and_says_what_was_asked() {
    let enclave = launched();
    let verified = enclave.verify(&enclave.document()).unwrap();
    assert_eq!(verified.image(), &ImageVerdict::Expected { label: "1.0".to_owned() });
    assert_eq!(verified.module_id(), enclave.nsm.module_id());
    assert_eq!(verified.timestamp(), NOW);
    assert_eq!(verified.public_key(), request().public_key.as_deref());
    assert_eq!(verified.user_data(), request().user_data.as_deref());
    assert_eq!(verified.nonce(), request().nonce.as_deref());
    assert_eq!(verified.pcrs().len(), 16);
}

#[test]
fn absent_fields_are_null_and_read_as_absent() {
    let enclave = launched();
    let document = enclave.nsm.attest(AttestationRequest::default()).unwrap();
    let verified = enclave.verify(&document).unwrap();
    assert_eq!((verified.public_key(), verified.user_data(), verified.nonce()), (None, None, None));
    let ending = [b"\x65nonce\xf6\xff\x58\x60".as_slice(), &document[document.len() - 96..]].concat();
    assert!(document.ends_with(&ending));
}

#[test]
fn both_forms_of_the_payload_map_and_the_tagged_envelope_verify() {
    let enclave = launched();
    for form in [Form::Indefinite, Form::Definite] {
        let (mut draft, key) = enclave.draft();
        draft.form = form;
        let document = draft.sign(&key);
        assert_eq!(reason(enclave.verify(&document)), "verified", "{form:?}");
        assert_eq!(reason(enclave.verify(&[&[0xd2], document.as_slice()].concat())), "verified", "{form:?}");
    }
}

#[test]
fn an_independent_decoder_finds_the_same_document() {
    let enclave = launched();
    let document = enclave.document();
    let sign1 = coset::CoseSign1::from_slice(&document).unwrap();
    let es384 = coset::RegisteredLabelWithPrivate::Assigned(iana::Algorithm::ES384);
    assert_eq!(sign1.protected.header.alg, Some(es384));
    assert!(sign1.unprotected.is_empty());
    let payload: serde_cbor::Value = serde_cbor::from_slice(sign1.payload.as_deref().unwrap()).unwrap();
    let serde_cbor::Value::Map(fields) = payload else { panic!("{payload:?}") };
    let names: Vec<_> = fields.keys().map(|name| format!("{name:?}")).collect();
    assert_eq!(names.len(), 9);
    let leaf = UnverifiedDocument::parse(&document).unwrap().unverified_claims().certificate().to_vec();
    let (_, key) = enclave.draft();
    assert!(leaf.windows(97).any(|window| window == key.point()));
    let signed = sign1.tbs_data(&[]);
    aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED, key.point())
        .verify(&signed, &sign1.signature)
        .unwrap();
}

#[test]
fn a_document_that_an_independent_encoder_wrote_verifies() {
    let enclave = launched();
    let (draft, key) = enclave.draft();
    let header = coset::HeaderBuilder::new().algorithm(iana::Algorithm::ES384).build();
    let sign1 = coset::CoseSign1Builder::new()
        .protected(header)
        .payload(draft.payload())
        .create_signature(&[], |message| key.sign_cose(message))
        .build();
    assert_eq!(reason(enclave.verify(&sign1.to_vec().unwrap())), "verified");
}

#[test]
fn the_mock_root_is_believed_only_by_who_was_handed_it() {
    let (one, other) = (launched(), launched());
    let document = one.document();
    for (root, expected) in
        [(one.root(), "verified"), (other.root(), "untrusted-root"), (TrustRoot::aws(), "untrusted-root")]
    {
        let parsed = UnverifiedDocument::parse(&document).unwrap();
        assert_eq!(reason(parsed.verify_archived(&root, &one.image_policy())), expected);
    }
    let pem = TrustRoot::from_pem(one.hypervisor.root_pem().as_bytes()).unwrap();
    assert_eq!(pem, one.root());
    assert!(!pem.is_aws());
}

#[test]
fn a_debug_enclave_is_refused_whatever_the_policy() {
    let enclave = launched();
    let debug = enclave.hypervisor.launch_in(Mode::Debug, &enclave.image);
    let document = debug.attest(request()).unwrap();
    let zero = Err(Refusal::DebugMode { index: PcrIndex::IMAGE });
    for policy in [enclave.image_policy(), ImagePolicy::danger_any_image()] {
        let parsed = UnverifiedDocument::parse(&document).unwrap();
        assert!(!parsed.unverified_claims().pcrs().get(PcrIndex::PARENT_ROLE).unwrap().is_zero());
        assert_eq!(parsed.verify_archived(&enclave.root(), &policy).map(drop), zero);
    }
}

#[test]
fn only_locked_registers_are_listed_and_a_locked_one_never_changes() {
    let enclave = launched();
    let nsm = &enclave.nsm;
    let extended = nsm.extend_pcr(own(16), b"log id").unwrap();
    assert_eq!(extended, PcrValue::ZERO.extended(b"log id"));
    assert_eq!(enclave.verify(&enclave.document()).unwrap().pcrs().get(own(16)), None);
    nsm.lock_pcr(own(16)).unwrap();
    assert_eq!(enclave.verify(&enclave.document()).unwrap().pcrs().get(own(16)), Some(&extended));
    assert_eq!(nsm.extend_pcr(own(16), b"again"), Err(NsmError::ReadOnly(own(16))));
    assert_eq!(nsm.lock_pcr(own(16)), Err(NsmError::ReadOnly(own(16))));
    let state = nsm.describe_pcr(own(16)).unwrap();
    assert!(state.locked && state.value == extended);
    assert!(!nsm.describe_pcr(own(31)).unwrap().locked);
}

#[test]
fn the_hypervisors_registers_are_read_only() {
    let enclave = launched();
    for index in 0..16 {
        assert_eq!(enclave.nsm.extend_pcr(own(index), b"x"), Err(NsmError::ReadOnly(own(index))));
    }
    assert_eq!(enclave.nsm.describe_pcr(PcrIndex::IMAGE).unwrap().value, enclave.image.identity[0]);
}

#[test]
fn a_field_that_the_device_would_refuse_is_refused() {
    let enclave = launched();
    let longest = AttestationRequest {
        public_key: Some(vec![1; 1024]),
        user_data: Some(vec![2; 512]),
        nonce: Some(vec![3; 512]),
    };
    assert_eq!(reason(enclave.verify(&enclave.nsm.attest(longest.clone()).unwrap())), "verified");
    let too_long = AttestationRequest { nonce: Some(vec![3; 513]), ..longest };
    assert!(matches!(enclave.nsm.attest(too_long), Err(NsmError::FieldTooLong { name: "nonce", .. })));
}

#[test]
fn certificates_are_renewed_before_they_end() {
    let enclave = launched();
    let leaf =
        |document: &[u8]| UnverifiedDocument::parse(document).unwrap().unverified_claims().certificate().to_vec();
    let first = enclave.document();
    enclave.clock.advance(Duration::from_secs(2 * 3600));
    assert_eq!(leaf(&enclave.document()), leaf(&first));
    enclave.clock.advance(Duration::from_secs(3600));
    let renewed = enclave.document();
    assert_ne!(leaf(&renewed), leaf(&first));
    assert_eq!(reason(enclave.verify(&renewed)), "verified");
    assert_eq!(enclave.verify(&renewed).unwrap().timestamp(), enclave.clock.now());
}

#[test]
fn images_of_one_name_measure_the_same_and_no_other_does() {
    assert_eq!(MockImage::named("a"), MockImage::named("a"));
    let (a, b) = (MockImage::named("a").identity, MockImage::named("b").identity);
    assert!(a[0] != b[0] && a[1] == b[1] && a[2] != b[2]);
}

#[test]
fn every_register_and_every_random_byte_is_as_large_as_asked() {
    let enclave = launched();
    let mut random = [0; 1000];
    enclave.nsm.random(&mut random).unwrap();
    assert!(random.chunks(100).all(|part| part.iter().any(|byte| *byte != 0)));
}
