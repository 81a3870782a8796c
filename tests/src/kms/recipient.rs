use serde::Deserialize;
use transcode_confidential::{
    attestation::{Claims, Freshness, ImagePolicy, Refusal, TrustRoot, UnverifiedDocument},
    ids::Digest,
    time::Timestamp,
};

use super::{api::ApiError, operation::Blob};

/// The `Recipient` of a request.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Recipient {
    key_encryption_algorithm: Option<String>,
    attestation_document: Option<Blob>,
}

/// A caller that proved where it runs.
pub(super) struct Attested {
    pub(super) document: Digest,
    pub(super) claims: Claims,
}

impl Recipient {
    /// Verifies the document as KMS does: chain, signature, at most five minutes old. Which image it is, the key policy
    /// judges; a debug document is authentic and presents zeros.
    pub(super) fn verify(&self, root: &TrustRoot, now: Timestamp) -> Result<Attested, ApiError> {
        let invalid = |why: &str| ApiError::new("ValidationException", format!("Invalid attestation document: {why}"));
        if self.key_encryption_algorithm.as_deref() != Some("RSAES_OAEP_SHA_256") {
            return Err(ApiError::new("ValidationException", "Recipient: unsupported KeyEncryptionAlgorithm"));
        }
        let Some(Blob(received)) = &self.attestation_document else { return Err(invalid("missing")) };
        let document = UnverifiedDocument::parse(received).map_err(|refusal| invalid(refusal.reason()))?;
        let claims = document.unverified_claims().clone();
        let freshness = Freshness::within(Freshness::DEFAULT_MAX_AGE);
        match document.verify_live(root, now, freshness, &ImagePolicy::danger_any_image()) {
            Ok(_) | Err(Refusal::DebugMode { .. }) => Ok(Attested { document: Digest::of(received), claims }),
            Err(refusal) => Err(invalid(refusal.reason())),
        }
    }
}

impl Attested {
    /// The condition keys that the document gives: `kms:RecipientAttestation:ImageSha384` and `...:PCR<n>`.
    pub(super) fn condition_keys(&self) -> impl Iterator<Item = (String, Vec<String>)> {
        self.claims.pcrs().iter().flat_map(|(index, value)| {
            let names = if index.get() == 0 {
                vec!["ImageSha384".to_owned(), index.to_string()]
            } else {
                vec![index.to_string()]
            };
            let keyed = move |name| (format!("kms:RecipientAttestation:{name}"), vec![value.to_string()]);
            names.into_iter().map(keyed)
        })
    }
}
