//! Attestation documents, the certificates in them, their `user_data`, and what images may measure.

use std::sync::LazyLock;

use transcode_confidential::{
    attestation::{Freshness, ImagePolicy, Measurements, Nonce, TrustRoot, UnverifiedDocument, UserData},
    time::Timestamp,
};

use super::{
    edits::edited,
    material::{self, repository},
};
use crate::nsm::{DocumentDraft, MockImage};

/// When the chain of the material is valid: 2026-01-31T12:00:00Z, as the example document.
pub(super) const NOW: Timestamp = Timestamp::from_secs(1_769_860_800);
pub(super) const EXAMPLE: &str = "transcode-confidential/tests/vectors/attestation/channel.cbor";

static EXAMPLE_ROOT: LazyLock<TrustRoot> = LazyLock::new(|| {
    TrustRoot::from_pem(&repository("transcode-confidential/tests/vectors/attestation/root.pem")).unwrap()
});
static EXAMPLE_DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| repository(EXAMPLE));

/// Even first byte: a document. Odd: edits of the example, none of which may verify.
pub(super) fn attestation_document(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let genuine = EXAMPLE_DOCUMENT.as_slice();
    let received = if mode % 2 == 0 { rest.to_vec() } else { edited(genuine, rest) };
    let image = ImagePolicy::danger_any_image();
    for root in [&TrustRoot::aws(), &EXAMPLE_ROOT] {
        let Ok(document) = UnverifiedDocument::parse(&received) else { return };
        let now = document.unverified_claims().timestamp();
        let nonce = Nonce::derived(std::array::from_fn(|index| index as u8));
        let live = document.verify_live(root, now, Freshness::with_nonce(nonce), &image);
        let archived = UnverifiedDocument::parse(&received).and_then(|document| document.verify_archived(root, &image));
        assert!(live.is_err() || archived.is_ok(), "live is the stricter of the two");
        if !root.is_aws() {
            // The COSE tag may stand before it or not.
            let untouched = received.strip_prefix(&[0xd2]).unwrap_or(&received) == genuine;
            assert_eq!(archived.is_ok(), untouched, "the example verifies, and no other document");
        }
    }
}

/// The first byte names a place in the chain, the rest is edits of the certificate there (odd) or stands in its place (even),
/// in a document that is signed anew. None may verify.
pub(super) fn certificates(input: &[u8]) {
    let [place, mode, rest @ ..] = input else { return };
    let mut chain = material::CHAIN.clone();
    let place = usize::from(place % 5);
    let genuine = chain.certificates[place].clone();
    chain.certificates[place] = if mode % 2 == 0 { rest.to_vec() } else { edited(&genuine, rest) };
    let untouched = chain.certificates[place] == genuine;
    let _ = TrustRoot::from_der(&chain.certificates[place]);
    let _ = TrustRoot::from_pem(&chain.certificates[place]);
    let mut draft = DocumentDraft::new("i-0-enc0", NOW, &chain);
    draft.set_pcrs(&MockImage::named("1.0").pcrs());
    let document = draft.sign(&chain.leaf_key);
    let verified = UnverifiedDocument::parse(&document)
        .and_then(|document| document.verify_archived(&material::CHAIN_ROOT, &ImagePolicy::danger_any_image()));
    assert_eq!(verified.is_ok(), untouched, "certificate {place}: {:?}", verified.err());
}

/// What is accepted is the one encoding.
pub(super) fn user_data(input: &[u8]) {
    if let Ok(decoded) = UserData::decode(input) {
        assert_eq!(decoded.encode(), input);
    }
}

/// What is accepted says the same once written.
pub(super) fn measurements(input: &[u8]) {
    if let Ok(read) = Measurements::from_json(input) {
        assert_eq!(Measurements::from_json(read.to_json()).as_ref(), Ok(&read));
    }
}
