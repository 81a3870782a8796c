//! Every document of the corpus of genuine attestation documents gets the right verdict for the right reason.
//!
//! The corpus is not part of the repository: `CONFIDENTIAL_CORPUS` names its directory, and without it these tests say
//! that they are skipped.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests fail loudly")]

use std::{fs, path::PathBuf, time::Duration};

use transcode_confidential::{
    attestation::{
        Archived, ExpectedImage, ExpectedNonce, Freshness, ImagePolicy, ImageVerdict, Measurements, Nonce, PcrIndex,
        PcrValue, Purpose, Refusal, TrustRoot, UnverifiedDocument, VerifiedDocument,
    },
    time::Timestamp,
};

#[derive(serde::Deserialize)]
struct Manifest {
    root_der_sha256: String,
    documents: Vec<Entry>,
}

#[derive(serde::Deserialize)]
struct Entry {
    file: PathBuf,
    kind: String,
    #[serde(default)]
    verify_at_unix: u64,
    #[serde(default)]
    chain_valid_from: String,
    #[serde(default)]
    chain_valid_to: String,
    #[serde(default)]
    timestamp_ms: u64,
    #[serde(default)]
    module_id: String,
    public_key_len: Option<usize>,
    user_data_len: Option<usize>,
    nonce_len: Option<usize>,
    #[serde(default)]
    nonzero_pcrs: std::collections::BTreeMap<String, String>,
}

struct Document {
    entry: Entry,
    bytes: Vec<u8>,
}

/// The documents of one kind, or `None` where there is no corpus.
fn corpus(kind: &str) -> Option<Vec<Document>> {
    let Some(root) = std::env::var_os("CONFIDENTIAL_CORPUS") else {
        eprintln!("skipped: CONFIDENTIAL_CORPUS is not set");
        return None;
    };
    let dir = PathBuf::from(root).join("attestation");
    let manifest: Manifest = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest.root_der_sha256, TrustRoot::aws().fingerprint().to_string());
    let of_kind = manifest.documents.into_iter().filter(|entry| entry.kind == kind);
    let documents: Vec<_> =
        of_kind.map(|entry| Document { bytes: fs::read(dir.join(&entry.file)).unwrap(), entry }).collect();
    assert!(!documents.is_empty(), "{kind}");
    Some(documents)
}

impl Document {
    fn parse(&self) -> UnverifiedDocument<'_> {
        UnverifiedDocument::parse(&self.bytes).unwrap_or_else(|refusal| panic!("{:?}: {refusal}", self.entry.file))
    }

    fn archived(&self, policy: &ImagePolicy) -> Result<VerifiedDocument<Archived>, Refusal> {
        UnverifiedDocument::parse(&self.bytes)?.verify_archived(&TrustRoot::aws(), policy)
    }

    fn live_at(&self, now: Timestamp, freshness: Freshness) -> Result<(), Refusal> {
        let any_image = ImagePolicy::danger_any_image();
        self.parse().verify_live(&TrustRoot::aws(), now, freshness, &any_image).map(drop)
    }

    fn made_at(&self) -> Timestamp {
        Timestamp(self.entry.timestamp_ms)
    }

    fn own_image(&self) -> ExpectedImage {
        ExpectedImage::same_as("own", self.parse().unverified_claims().pcrs()).unwrap()
    }
}

fn any_time() -> Freshness {
    Freshness { nonce: ExpectedNonce::Any, max_age: Duration::MAX, future_tolerance: Duration::MAX }
}

fn reason<T>(result: Result<T, Refusal>) -> &'static str {
    result.map_or_else(|refusal| refusal.reason(), |_| "verified")
}

#[test]
fn every_production_document_verifies_at_its_own_time_and_says_what_the_manifest_says() {
    for document in corpus("production").unwrap_or_default() {
        let Entry { file, module_id, nonzero_pcrs, .. } = &document.entry;
        let verified = document.archived(&ImagePolicy::danger_any_image()).unwrap_or_else(|r| panic!("{file:?}: {r}"));
        assert_eq!(verified.image(), &ImageVerdict::Unchecked);
        assert_eq!(verified.module_id(), module_id);
        assert_eq!(verified.timestamp(), document.made_at());
        assert_eq!(verified.timestamp().as_secs(), document.entry.verify_at_unix);
        assert_eq!(verified.public_key().map(<[u8]>::len), document.entry.public_key_len, "{file:?}");
        assert_eq!(verified.user_data().map(<[u8]>::len), document.entry.user_data_len, "{file:?}");
        assert_eq!(verified.nonce().map(<[u8]>::len), document.entry.nonce_len, "{file:?}");
        let nonzero = verified.pcrs().iter().filter(|(_, value)| !value.is_zero());
        let nonzero = nonzero.map(|(index, value)| (index.get().to_string(), value.to_string()));
        assert_eq!(nonzero.collect::<std::collections::BTreeMap<_, _>>(), *nonzero_pcrs, "{file:?}");
    }
}

#[test]
fn every_production_document_verifies_with_its_own_measurements_and_with_no_other() {
    let documents = corpus("production").unwrap_or_default();
    for document in &documents {
        let own = ImagePolicy::Expect(Measurements::new(vec![document.own_image()]).unwrap());
        let verified = document.archived(&own).unwrap();
        assert_eq!(verified.image(), &ImageVerdict::Expected { label: "own".to_owned() });
        for other in &documents {
            if other.own_image() != document.own_image() {
                assert_eq!(reason(other.archived(&own)), "unexpected-image");
            }
        }
    }
}

#[test]
fn an_image_that_differs_in_one_register_is_refused_and_that_register_is_named() {
    for document in corpus("production").unwrap_or_default() {
        for index in PcrIndex::OF_IMAGE {
            let mut pcrs = document.own_image().pcrs().clone();
            pcrs.insert(index, PcrValue::new([0xab; 48]));
            let expected = ExpectedImage::new("other", None, pcrs).unwrap();
            let policy = ImagePolicy::Expect(Measurements::new(vec![expected]).unwrap());
            match document.archived(&policy) {
                Err(Refusal::UnexpectedImage(image)) => assert_eq!(image.differing, [index]),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn an_image_is_accepted_until_its_not_after_and_no_longer() {
    for document in corpus("production").unwrap_or_default() {
        let until = |not_after| {
            let pcrs = document.own_image().pcrs().clone();
            let image = ExpectedImage::new("old", Some(not_after), pcrs).unwrap();
            ImagePolicy::Expect(Measurements::new(vec![image]).unwrap())
        };
        assert!(document.archived(&until(document.made_at())).is_ok());
        let a_moment_before = document.made_at().minus(Duration::from_millis(1));
        assert_eq!(reason(document.archived(&until(a_moment_before))), "image-expired");
    }
}

#[test]
fn a_production_document_is_live_while_its_certificates_are_valid_and_not_a_second_longer() {
    for document in corpus("production").unwrap_or_default() {
        let from: Timestamp = document.entry.chain_valid_from.parse().unwrap();
        let to: Timestamp = document.entry.chain_valid_to.parse().unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(reason(document.live_at(document.made_at(), any_time())), "verified");
        assert_eq!(reason(document.live_at(from, any_time())), "verified");
        assert_eq!(reason(document.live_at(to, any_time())), "verified");
        assert_eq!(reason(document.live_at(from.minus(second), any_time())), "certificate-not-yet-valid");
        assert_eq!(reason(document.live_at(to.plus(second), any_time())), "certificate-expired");
    }
}

#[test]
fn a_production_document_is_fresh_within_the_accepted_age_and_the_tolerated_difference_of_clocks() {
    let freshness = |max_age, future_tolerance| Freshness {
        nonce: ExpectedNonce::Any,
        max_age: Duration::from_millis(max_age),
        future_tolerance: Duration::from_millis(future_tolerance),
    };
    for document in corpus("production").unwrap_or_default() {
        let later = document.made_at().plus(Duration::from_secs(60));
        assert_eq!(reason(document.live_at(later, freshness(60_000, 0))), "verified");
        assert_eq!(reason(document.live_at(later, freshness(59_999, 0))), "too-old");
        let earlier = document.made_at().minus(Duration::from_millis(200));
        assert_eq!(reason(document.live_at(earlier, freshness(0, 200))), "verified");
        assert_eq!(reason(document.live_at(earlier, freshness(0, 199))), "from-the-future");
    }
}

#[test]
fn a_production_document_answers_its_own_nonce_only() {
    for document in corpus("production").unwrap_or_default() {
        let claims = document.parse().unverified_claims().clone();
        let other = Freshness::with_nonce(Nonce::derived([7; 32]));
        let expected = if claims.nonce().is_some() { "nonce-mismatch" } else { "nonce-missing" };
        assert_eq!(reason(document.live_at(document.made_at(), other)), expected);
        if let Some(own) = claims.nonce().and_then(|nonce| nonce.try_into().ok()) {
            let own = Freshness::with_nonce(Nonce::derived(own));
            assert_eq!(reason(document.live_at(document.made_at(), own)), "verified");
        }
    }
}

#[test]
fn no_foreign_document_states_a_purpose_of_ours() {
    for document in corpus("production").unwrap_or_default() {
        let verified = document.archived(&ImagePolicy::danger_any_image()).unwrap();
        assert_eq!(verified.purpose(), None);
        let expected = if verified.user_data().is_none() { "purpose-missing" } else { "purpose-unreadable" };
        for code in 1..=5 {
            assert_eq!(reason(verified.require_purpose(Purpose::from_code(code).unwrap())), expected);
        }
    }
}

#[test]
fn the_tag_of_a_cose_sign1_changes_no_verdict() {
    for document in corpus("production").unwrap_or_default() {
        let tagged = Document { bytes: [&[0xd2], document.bytes.as_slice()].concat(), entry: document.entry };
        assert_eq!(reason(tagged.archived(&ImagePolicy::danger_any_image())), "verified");
    }
}

#[test]
fn every_debug_document_is_refused_whatever_the_policy() {
    for document in corpus("debug").unwrap_or_default() {
        assert_eq!(reason(document.archived(&ImagePolicy::danger_any_image())), "debug-mode");
        let live = document.live_at(document.made_at(), any_time());
        assert_eq!(live, Err(Refusal::DebugMode { index: PcrIndex::IMAGE }));
        // There is no way to write down a policy that would match it.
        assert!(ExpectedImage::same_as("zeros", document.parse().unverified_claims().pcrs()).is_err());
    }
}

#[test]
fn every_document_that_must_be_refused_is_refused_for_the_right_reason() {
    for document in corpus("refuse").unwrap_or_default() {
        let name = document.entry.file.to_str().unwrap().to_owned();
        let expected = match name.as_str() {
            "refuse/20221109T225200Z_7df2cdc016ae.cbor" => "signature",
            "refuse/20241213T090545Z_d8032479f7cb.cbor" => "untrusted-root",
            "refuse/20260618T051049Z_020ed8bb353d_nitrotpm.cbor" => "not-an-enclave",
            other => panic!("no expectation for {other}"),
        };
        assert_eq!(reason(document.archived(&ImagePolicy::danger_any_image())), expected, "{name}");
    }
}

#[test]
fn the_root_of_another_provider_verifies_no_genuine_document() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let other = TrustRoot::from_der(params.self_signed(&key).unwrap().der()).unwrap();
    assert!(!other.is_aws());
    for document in corpus("production").unwrap_or_default() {
        let refused = document.parse().verify_archived(&other, &ImagePolicy::danger_any_image());
        assert_eq!(refused.map(drop), Err(Refusal::UntrustedRoot { found: TrustRoot::aws().fingerprint() }));
    }
}
