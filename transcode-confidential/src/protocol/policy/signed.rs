use thiserror::Error;

use super::{Policy, cose};
use crate::{
    cbor::CborError,
    ids::Digest,
    signature::{PublicKey, SigningKey},
};

/// Greatest length of a signed policy, in bytes.
pub const DOCUMENT_LIMIT: usize = 64 * 1024;

const EXTERNAL_AAD: &[u8] = b"transcode-confidential/policy/v1";

/// Why a policy document is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Not a policy document, or not in its one encoding.
    #[error("not a policy document: {0}")]
    Encoding(#[from] CborError),
    /// Longer than [`DOCUMENT_LIMIT`].
    #[error("the policy document has {0} bytes, more than {DOCUMENT_LIMIT}")]
    TooLong(usize),
    /// Not signed by the authority.
    #[error("the policy is not signed by the policy authority")]
    Signature,
    /// For another deployment.
    #[error("the policy is for another deployment")]
    Deployment,
    /// Not newer than the one in force.
    #[error("policy version {offered} is not newer than version {current}")]
    NotNewer {
        /// The version in force.
        current: u64,
        /// The version of the document.
        offered: u64,
    },
}

/// A policy document whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPolicy {
    policy: Policy,
    document: Vec<u8>,
}

impl SignedPolicy {
    /// Signs a policy.
    pub fn sign(policy: Policy, authority: &SigningKey) -> Self {
        let document = cose::sign(EXTERNAL_AAD, &policy.encode(), authority);
        Self { policy, document }
    }

    /// Verifies a document.
    ///
    /// # Errors
    /// [`PolicyError::Encoding`], [`PolicyError::TooLong`], [`PolicyError::Signature`]. The signature is checked before the
    /// payload is read.
    pub fn verify(document: &[u8], authority: &PublicKey) -> Result<Self, PolicyError> {
        let payload = cose::open(EXTERNAL_AAD, document, authority)?;
        Ok(Self { policy: Policy::decode(payload)?, document: document.to_vec() })
    }

    /// Verifies that this policy may replace the one of version `current` in `deployment`.
    ///
    /// # Errors
    /// [`PolicyError::Deployment`], [`PolicyError::NotNewer`].
    pub fn check_succeeds(&self, deployment: &str, current: u64) -> Result<(), PolicyError> {
        if self.policy.deployment != deployment {
            return Err(PolicyError::Deployment);
        }
        if self.policy.version <= current {
            return Err(PolicyError::NotNewer { current, offered: self.policy.version });
        }
        Ok(())
    }

    /// The policy.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The document's bytes.
    pub fn document(&self) -> &[u8] {
        &self.document
    }

    /// SHA-256 of the document.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.document)
    }

    /// Reads what a document says, without verifying anything: to show it to a person.
    ///
    /// # Errors
    /// [`PolicyError::Encoding`], [`PolicyError::TooLong`].
    pub fn claimed(document: &[u8]) -> Result<Policy, PolicyError> {
        if document.len() > DOCUMENT_LIMIT {
            return Err(PolicyError::TooLong(document.len()));
        }
        Ok(Policy::decode(cose::payload(document)?)?)
    }

    /// Reads the version that a document claims, without verifying anything: for a parent that only wants to know whether
    /// there is news to hand over.
    ///
    /// # Errors
    /// [`PolicyError::Encoding`].
    pub fn claimed_version(document: &[u8]) -> Result<u64, PolicyError> {
        Ok(Policy::decode(cose::payload(document)?)?.version)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{CallerImages, Grant, Operation},
        *,
    };
    use crate::{
        attestation::{ExpectedImage, Measurements, PcrIndex, PcrValue, Pcrs},
        secret::KeyMaterial,
        time::Timestamp,
    };

    fn authority() -> SigningKey {
        SigningKey::from_seed(&KeyMaterial::from_bytes([8; 32])).unwrap()
    }

    fn policy() -> Policy {
        Policy {
            deployment: "studio".into(),
            version: 3,
            issued_at: Timestamp(5),
            grants: vec![
                Grant {
                    principal: "transcoder-1".parse().unwrap(),
                    key_prefix: "film-".into(),
                    operations: [Operation::Encrypt, Operation::Decrypt].into(),
                    caller: None,
                },
                Grant {
                    principal: "*".parse().unwrap(),
                    key_prefix: String::new(),
                    operations: [Operation::Report].into(),
                    caller: None,
                },
            ],
            denied: vec!["intern".parse().unwrap()],
        }
    }

    #[test]
    fn what_is_not_granted_is_refused() {
        let policy = policy();
        let (one, intern) = ("transcoder-1".parse().unwrap(), "intern".parse().unwrap());
        let (film, song) = ("film-7".parse().unwrap(), "song-7".parse().unwrap());
        assert!(policy.allows(&one, Operation::Encrypt, Some(&film)));
        assert!(!policy.allows(&one, Operation::Encrypt, Some(&song)));
        assert!(!policy.allows(&one, Operation::Revoke, Some(&film)));
        assert!(policy.allows(&one, Operation::Report, Some(&song)));
        assert!(!policy.allows(&intern, Operation::Report, Some(&song)), "denied beats granted");
        assert!(policy.knows(&one, &song) && !policy.knows(&intern, &song));
        assert!(policy.allows_all(&one, Operation::Report) && !policy.allows_all(&intern, Operation::Report));
        assert!(!policy.allows_all(&one, Operation::Encrypt), "with some keys is not with all");
    }

    #[test]
    fn a_grant_for_attested_callers_is_for_nobody_else() {
        let registers = |first: u8| -> Pcrs {
            (0..3)
                .map(|n| (PcrIndex::new(n).unwrap(), PcrValue::try_from([first + n; 48].as_slice()).unwrap()))
                .collect()
        };
        let images = |first| {
            let image = ExpectedImage::new("transcoder", None, registers(first)).unwrap();
            CallerImages::of(&Measurements::new(vec![image]).unwrap()).unwrap()
        };
        let mut policy = policy();
        policy.grants[0].caller = Some(images(1));
        assert_eq!(Policy::decode(&policy.encode()).as_ref(), Ok(&policy));
        let (one, film) = ("transcoder-1".parse().unwrap(), "film-7".parse().unwrap());
        let allows = |attested: Option<&Pcrs>| policy.allows_caller(&one, attested, Operation::Encrypt, Some(&film));
        assert!(allows(Some(&registers(1))));
        assert!(!allows(None) && !allows(Some(&registers(4))) && !policy.allows(&one, Operation::Encrypt, Some(&film)));
        assert!(policy.allows(&one, Operation::Report, Some(&film)), "other grants are as they were");
        assert!(policy.expects_caller(&one, &registers(1)) && !policy.expects_caller(&one, &registers(4)));
        let mut more = registers(1);
        more.insert(PcrIndex::new(8).unwrap(), PcrValue::try_from([9; 48].as_slice()).unwrap());
        assert!(allows(Some(&more)), "a caller may have more registers than are asked for");
        let mut zero = policy.clone();
        zero.grants[0].caller = Some(images(1));
        let bytes = zero.encode();
        let at = bytes.windows(48).position(|window| window == [1; 48]).unwrap();
        let mut zeroed = bytes;
        zeroed[at..at + 48].fill(0);
        assert_eq!(Policy::decode(&zeroed), Err(CborError::Range), "an image in debug mode is none");
    }

    #[test]
    fn a_signed_policy_verifies_and_no_changed_byte_of_it_does() {
        let signed = SignedPolicy::sign(policy(), &authority());
        let public = authority().public_key();
        assert_eq!(SignedPolicy::verify(signed.document(), &public).as_ref(), Ok(&signed));
        assert_eq!(SignedPolicy::claimed_version(signed.document()), Ok(3));
        for at in 0..signed.document().len() {
            let mut changed = signed.document().to_vec();
            changed[at] ^= 1;
            assert!(SignedPolicy::verify(&changed, &public).is_err(), "byte {at}");
            assert!(SignedPolicy::verify(&signed.document()[..at], &public).is_err());
        }
        let other = SigningKey::from_seed(&KeyMaterial::from_bytes([9; 32])).unwrap().public_key();
        assert_eq!(SignedPolicy::verify(signed.document(), &other), Err(PolicyError::Signature));
    }

    #[test]
    fn an_older_equal_or_foreign_policy_does_not_succeed() {
        let signed = SignedPolicy::sign(policy(), &authority());
        assert_eq!(signed.check_succeeds("studio", 2), Ok(()));
        assert_eq!(signed.check_succeeds("studio", 3), Err(PolicyError::NotNewer { current: 3, offered: 3 }));
        assert_eq!(signed.check_succeeds("other", 2), Err(PolicyError::Deployment));
    }
}
