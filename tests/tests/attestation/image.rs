//! Which images are accepted.

use enclave_app::nsm::Nsm as _;
use testkit::nsm::MockImage;
use transcode_confidential::attestation::{
    ExpectedImage, ImagePolicy, ImageVerdict, Measurements, PcrIndex, PcrValue, Problem, Refusal, UnverifiedDocument,
};

use crate::{Launched, launched, reason, request};

fn with_policy(enclave: &Launched, policy: &ImagePolicy) -> Result<ImageVerdict, Refusal> {
    let document = enclave.document();
    let parsed = UnverifiedDocument::parse(&document)?;
    parsed.verify_archived(&enclave.root(), policy).map(|verified| verified.image().clone())
}

fn expect(images: Vec<ExpectedImage>) -> ImagePolicy {
    Measurements::new(images).unwrap().into()
}

#[test]
fn during_an_upgrade_the_old_image_and_the_new_one_are_accepted_but_no_mixture() {
    let (old, new) = (MockImage::named("1.0"), MockImage::named("1.1"));
    let policy = expect(vec![new.expected("new"), old.expected("old")]);
    let enclave = launched();
    assert_eq!(with_policy(&enclave, &policy), Ok(ImageVerdict::Expected { label: "old".to_owned() }));

    let mixture = MockImage::measuring([old.identity[0], old.identity[1], new.identity[2]]);
    let document = enclave.hypervisor.launch(&mixture).attest(request()).unwrap();
    let refusal = UnverifiedDocument::parse(&document).unwrap().verify_archived(&enclave.root(), &policy).unwrap_err();
    match refusal {
        Refusal::UnexpectedImage(image) => {
            assert_eq!((image.closest.as_str(), image.differing), ("new", vec![PcrIndex::IMAGE]));
            assert_eq!(image.presented[2], (PcrIndex::APPLICATION, new.identity[2]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_register_that_is_expected_must_be_listed_so_locked() {
    let enclave = launched();
    let index = PcrIndex::new(16).unwrap();
    let value = enclave.nsm.extend_pcr(index, b"log id").unwrap();
    let mut pcrs = enclave.image.pcrs();
    pcrs.insert(index, value);
    let policy = expect(vec![ExpectedImage::new("1.0 of that log", None, pcrs).unwrap()]);
    assert_eq!(reason(with_policy(&enclave, &policy)), "unexpected-image");
    enclave.nsm.lock_pcr(index).unwrap();
    assert_eq!(reason(with_policy(&enclave, &policy)), "verified");
}

#[test]
fn the_signer_of_an_image_narrows_it() {
    let enclave = launched();
    let signer = PcrValue::ZERO.extended(b"our certificate");
    let signed = MockImage { signer: Some(signer), ..enclave.image.clone() };
    let policy = expect(vec![signed.expected("signed")]);
    assert_eq!(reason(with_policy(&enclave, &policy)), "unexpected-image");
    let document = enclave.hypervisor.launch(&signed).attest(request()).unwrap();
    let parsed = UnverifiedDocument::parse(&document).unwrap();
    assert_eq!(reason(parsed.verify_archived(&enclave.root(), &policy)), "verified");
}

#[test]
fn any_image_is_accepted_only_where_that_was_asked_for_and_the_verdict_says_so() {
    let enclave = launched();
    assert_eq!(with_policy(&enclave, &ImagePolicy::danger_any_image()), Ok(ImageVerdict::Unchecked));
}

#[test]
fn an_image_cannot_be_expected_by_anything_less_than_its_three_registers() {
    let whole = MockImage { signer: Some(PcrValue::ZERO.extended(b"x")), ..MockImage::named("1.0") };
    for missing in PcrIndex::OF_IMAGE {
        let pcrs = whole.pcrs().iter().filter(|(index, _)| *index != missing).map(|(i, value)| (i, *value)).collect();
        let problems = ExpectedImage::new("part", None, pcrs).unwrap_err().findings;
        assert_eq!(
            problems.into_iter().map(|finding| finding.problem).collect::<Vec<_>>(),
            [Problem::Missing(missing)]
        );
        let mut zero = whole.pcrs();
        zero.insert(missing, PcrValue::ZERO);
        let problems = ExpectedImage::new("zero", None, zero).unwrap_err().findings;
        assert_eq!(problems[0].problem, Problem::Zero(missing));
    }
    assert!(Measurements::new(Vec::new()).is_err());
}

#[test]
fn measurements_that_were_written_and_read_again_accept_the_same() {
    let enclave = launched();
    let json = enclave.image.measurements("from file").to_json();
    let policy = ImagePolicy::Expect(Measurements::from_json(json).unwrap());
    assert_eq!(with_policy(&enclave, &policy), Ok(ImageVerdict::Expected { label: "from file".to_owned() }));
}
