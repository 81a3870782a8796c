//! Mock documents and the production verifier: what is right verifies, and every way of being wrong that we could think
//! of is refused for its own reason, although the hypervisor's own keys signed it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests fail loudly, and say what they skip"
)]

mod certificates;
mod every_byte;
mod freshness;
mod image;
mod nsm;
mod structure;

use std::sync::Arc;

use enclave_app::nsm::{AttestationRequest, Nsm as _};
use testkit::{
    clock::ManualClock,
    nsm::{DocumentDraft, MockHypervisor, MockImage, MockNsm, SigningKey},
};
use transcode_confidential::{
    attestation::{Archived, ImagePolicy, Refusal, TrustRoot, UnverifiedDocument, VerifiedDocument},
    time::Timestamp,
};

/// 2026-01-31T12:00:00Z.
const NOW: Timestamp = Timestamp::from_secs(1_769_860_800);

/// An enclave of the image `1.0`, the hypervisor that launched it, and a clock that stands at [`NOW`].
struct Launched {
    clock: Arc<ManualClock>,
    hypervisor: MockHypervisor,
    image: MockImage,
    nsm: Arc<MockNsm>,
}

fn launched() -> Launched {
    let clock = Arc::new(ManualClock::at(NOW));
    let hypervisor = MockHypervisor::new(clock.clone());
    let image = MockImage::named("1.0");
    let nsm = hypervisor.launch(&image);
    Launched { clock, hypervisor, image, nsm }
}

impl Launched {
    fn document(&self) -> Vec<u8> {
        self.nsm.attest(request()).unwrap()
    }

    /// A document with all fields, before it is signed.
    fn draft(&self) -> (DocumentDraft, SigningKey) {
        self.nsm.draft(request())
    }

    fn root(&self) -> TrustRoot {
        self.hypervisor.trust_root()
    }

    fn image_policy(&self) -> ImagePolicy {
        self.image.measurements("1.0").into()
    }

    fn verify(&self, document: &[u8]) -> Result<VerifiedDocument<Archived>, Refusal> {
        UnverifiedDocument::parse(document)?.verify_archived(&self.root(), &self.image_policy())
    }
}

fn request() -> AttestationRequest {
    AttestationRequest {
        public_key: Some(vec![4; 120]),
        user_data: Some(b"user data".to_vec()),
        nonce: Some(vec![5; 32]),
    }
}

/// `verified`, or the reason of the refusal.
fn reason<T>(result: Result<T, Refusal>) -> &'static str {
    result.map_or_else(|refusal| refusal.reason(), |_| "verified")
}
