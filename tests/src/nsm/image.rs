use enclave_app::nsm::PcrState;
use sha2::{Digest as _, Sha384};
use transcode_confidential::attestation::{ExpectedImage, Measurements, PcrIndex, PcrValue, Pcrs};

use super::Mode;

/// What an enclave image measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MockImage {
    /// PCR0, PCR1 and PCR2.
    pub identity: [PcrValue; 3],
    /// PCR8, where the image is signed.
    pub signer: Option<PcrValue>,
}

impl MockImage {
    /// An image of that name: the same name measures the same, another name differs in PCR0 and PCR2, as an image with
    /// another application on the same kernel does.
    pub fn named(name: &str) -> Self {
        let measured = |content: &str| PcrValue::ZERO.extended(&Sha384::digest(content));
        let kernel = measured("mock kernel");
        Self {
            identity: [measured(&format!("image {name}")), kernel, measured(&format!("application {name}"))],
            signer: None,
        }
    }

    /// An image with these values of PCR0, PCR1 and PCR2.
    pub const fn measuring(identity: [PcrValue; 3]) -> Self {
        Self { identity, signer: None }
    }

    /// The registers that identify it.
    pub fn pcrs(&self) -> Pcrs {
        let identity = PcrIndex::OF_IMAGE.into_iter().zip(self.identity);
        identity.chain(self.signer.map(|signer| (PcrIndex::IMAGE_SIGNER, signer))).collect()
    }

    /// The image as verifiers expect it.
    pub fn expected(&self, label: &str) -> ExpectedImage {
        ExpectedImage::new(label, None, self.pcrs()).unwrap()
    }

    /// Measurements that accept this image alone.
    pub fn measurements(&self, label: &str) -> Measurements {
        Measurements::new(vec![self.expected(label)]).unwrap()
    }

    /// All registers when the enclave starts: 0 to 15 are the hypervisor's and locked, 16 to 31 the enclave's.
    pub(super) fn registers_at_launch(&self, mode: Mode) -> Vec<(PcrIndex, PcrState)> {
        let identity = match mode {
            Mode::Production => self.pcrs(),
            Mode::Debug => self.pcrs().iter().filter(|(index, _)| *index == PcrIndex::IMAGE_SIGNER).map(own).collect(),
        };
        let role = PcrValue::ZERO.extended(&Sha384::digest("arn:aws:iam::111122223333:role/mock"));
        let instance = PcrValue::ZERO.extended(&Sha384::digest("i-mock"));
        let value = |index| match index {
            PcrIndex::PARENT_ROLE => role,
            PcrIndex::PARENT_INSTANCE => instance,
            other => identity.get(other).copied().unwrap_or(PcrValue::ZERO),
        };
        let all = (0..PcrIndex::COUNT).filter_map(PcrIndex::new);
        all.map(|index| (index, PcrState { value: value(index), locked: index < PcrIndex::FIRST_OWN })).collect()
    }
}

fn own((index, value): (PcrIndex, &PcrValue)) -> (PcrIndex, PcrValue) {
    (index, *value)
}
