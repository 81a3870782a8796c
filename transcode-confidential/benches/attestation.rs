//! Full verification of a document against the bare cost of the five P-384 verifications that it cannot do without:
//! those of four certificates and of the document.
//!
//! `cargo bench -p transcode-confidential --bench attestation` first prints the ratio, measured by alternating both on
//! one core and taking medians, then lets criterion measure each alone. A filter argument skips the
//! ratio, and `ratios` skips all else.
#![allow(missing_docs, reason = "criterion's macros generate the items")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark prints, and fails loudly"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, UnparsedPublicKey,
};
use criterion::Criterion;
use der::{Decode as _, Encode as _};
use transcode_confidential::{
    attestation::{ImagePolicy, Measurements, TrustRoot, UnverifiedDocument},
    cbor::Writer,
};

const DOCUMENT: &[u8] = include_bytes!("../tests/vectors/attestation/channel.cbor");
const ROOT: &[u8] = include_bytes!("../tests/vectors/attestation/root.pem");
const MEASUREMENTS: &[u8] = include_bytes!("../tests/vectors/attestation/measurements.json");
const ROUNDS: usize = 1000;

fn main() {
    let root = TrustRoot::from_pem(ROOT).unwrap();
    let policy = ImagePolicy::Expect(Measurements::from_json(MEASUREMENTS).unwrap());
    let verify = || {
        let parsed = UnverifiedDocument::parse(black_box(DOCUMENT)).unwrap();
        black_box(parsed.verify_archived(&root, &policy).unwrap());
    };
    let signatures = Signature::all_of_the_document();
    let bare = || signatures.iter().for_each(Signature::verify);

    if std::env::args().skip(1).all(|argument| argument.starts_with('-') || argument == "ratios") {
        print_ratio(&verify, &bare);
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("attestation");
    group.bench_function("full verification", |bencher| bencher.iter(verify));
    group.bench_function("five P-384 verifications", |bencher| bencher.iter(bare));
    group.bench_function("parsing alone", |bencher| {
        bencher.iter(|| UnverifiedDocument::parse(black_box(DOCUMENT)).unwrap());
    });
    group.finish();
    criterion.final_summary();
}

fn print_ratio(verify: &dyn Fn(), bare: &dyn Fn()) {
    let (mut full_times, mut bare_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare_times.push(timed(bare));
        full_times.push(timed(verify));
    }
    let (full, bare) = (median(full_times), median(bare_times));
    println!("full verification        {full:>10.2?}");
    println!("five P-384 verifications {bare:>10.2?}");
    println!("ratio                    {:>10.3}", bare.as_secs_f64() / full.as_secs_f64());
}

fn timed(run: &dyn Fn()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// One signature with what it needs, read out beforehand.
struct Signature {
    algorithm: &'static EcdsaVerificationAlgorithm,
    key: Vec<u8>,
    message: Vec<u8>,
    value: Vec<u8>,
}

impl Signature {
    fn all_of_the_document() -> Vec<Self> {
        let parsed = UnverifiedDocument::parse(DOCUMENT).unwrap();
        let claims = parsed.unverified_claims();
        let mut certificates: Vec<_> = claims.bundle().to_vec();
        certificates.push(claims.certificate().to_vec());
        let certificates: Vec<_> =
            certificates.iter().map(|der| x509_cert::Certificate::from_der(der).unwrap()).collect();
        let key = |certificate: &x509_cert::Certificate| {
            certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec()
        };
        let of_certificates = certificates.windows(2).map(|pair| Self {
            algorithm: &ECDSA_P384_SHA384_ASN1,
            key: key(&pair[0]),
            message: pair[1].tbs_certificate().to_der().unwrap(),
            value: pair[1].signature().raw_bytes().to_vec(),
        });
        let (rest, value) = DOCUMENT.split_at(DOCUMENT.len() - 96);
        let payload = &rest[10..rest.len() - 2];
        let mut message = Writer::new();
        message.array(4).text("Signature1").bytes(&[0xa1, 0x01, 0x38, 0x22]).bytes(&[]).bytes(payload);
        let of_document = Self {
            algorithm: &ECDSA_P384_SHA384_FIXED,
            key: key(&certificates[4]),
            message: message.into_bytes(),
            value: value.to_vec(),
        };
        of_certificates.chain([of_document]).collect()
    }

    fn verify(&self) {
        UnparsedPublicKey::new(self.algorithm, &self.key).verify(black_box(&self.message), &self.value).unwrap();
    }
}
