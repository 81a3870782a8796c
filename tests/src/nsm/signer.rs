use std::sync::Mutex;

use aws_nitro_enclaves_nsm_api::api::AttestationDoc;
use transcode_confidential::{
    cbor::Reader,
    time::{Clock, SystemClock, Timestamp},
};

use super::{
    document::DocumentDraft,
    pki::{Chain, MockPki},
};

/// Longest document that is taken, in bytes.
const LIMIT: usize = 16 * 1024;

/// Signs what an emulated NSM says: the device is somebody else's and knows no certificates.
///
/// Module, time, registers and the three fields of the request are the device's; certificates and signature are ours.
pub struct DocumentSigner {
    pki: MockPki,
    chain: Mutex<Option<(String, Chain)>>,
}

impl DocumentSigner {
    /// Signs under this root.
    pub const fn new(pki: MockPki) -> Self {
        Self { pki, chain: Mutex::new(None) }
    }

    /// The signed document; none where the bytes are no document.
    pub fn sign(&self, unsigned: &[u8]) -> Option<Vec<u8>> {
        let mut reader = Reader::new(unsigned);
        (reader.array(4).ok()? == 4).then_some(())?;
        reader.bytes(LIMIT).ok()?;
        reader.int_map(0).ok()?.end().ok()?;
        let payload = reader.bytes(LIMIT).ok()?;
        let said = AttestationDoc::from_binary(payload).ok()?;
        let now = SystemClock.now();
        let mut chain = self.chain.lock().unwrap();
        let current = chain.take().filter(|(module, chain)| *module == said.module_id && now < chain.valid.1);
        let (module, current) =
            current.unwrap_or_else(|| (said.module_id.clone(), self.pki.issue(&said.module_id, now)));
        let mut draft = DocumentDraft::new(&module, Timestamp(said.timestamp), &current);
        draft.pcrs = said.pcrs.into_iter().map(|(index, value)| (index as u64, value.into_vec())).collect();
        draft.public_key = said.public_key.map(|field| field.into_vec());
        draft.user_data = said.user_data.map(|field| field.into_vec());
        draft.nonce = said.nonce.map(|field| field.into_vec());
        let signed = draft.sign(&current.leaf_key);
        *chain = Some((module, current));
        Some(signed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use enclave_app::nsm::AttestationRequest;
    use transcode_confidential::attestation::UnverifiedDocument;

    use super::*;
    use crate::nsm::{MockHypervisor, MockImage, cose_sign1};

    #[test]
    fn what_the_device_says_stays_and_only_the_signature_and_its_certificates_are_new() {
        let image = MockImage::named("booted");
        let device = MockHypervisor::new(Arc::new(SystemClock)).launch(&image);
        let request = AttestationRequest { nonce: Some(vec![7; 32]), ..AttestationRequest::default() };
        let (draft, _) = device.draft(request);
        let unsigned = cose_sign1(&[0xa1, 0x01, 0x20], &[0xa0], &draft.payload(), &[0; 64]);

        let pki = MockPki::generate();
        let signed = DocumentSigner::new(pki.clone()).sign(&unsigned).unwrap();
        let policy = image.measurements("booted").into();
        let verified = UnverifiedDocument::parse(&signed).unwrap().verify_archived(&pki.trust_root(), &policy).unwrap();
        assert_eq!(verified.module_id(), device.module_id());
        assert_eq!(DocumentSigner::new(pki).sign(&unsigned[1..]), None);
    }
}
