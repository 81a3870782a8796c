//! The people of a deployment: a client CA with its identities, and the policy authority.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use transcode_confidential::{
    entropy::OsEntropy,
    ids::{Epoch, LogId, RootHash},
    protocol::{
        policy::{Grant, Operation, Policy, SignedPolicy},
        restore::{Restore, SignedRestore},
    },
    secret::KeyMaterial,
    signature::{PublicKey, SigningKey},
    time::{Clock as _, SystemClock},
};

/// Signs client certificates.
pub struct ClientCa {
    key: KeyPair,
    certificate: String,
}

impl ClientCa {
    /// A CA with a fresh key.
    pub fn generate() -> Self {
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = ca_params().self_signed(&key).expect("a certificate").pem();
        Self { key, certificate }
    }

    /// Its certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// Certificate and private key of a principal, PEM.
    pub fn identity_pem(&self, name: &str) -> String {
        let key = KeyPair::generate().expect("a P-256 key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::new(ca_params(), &self.key);
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        certificate.pem() + &key.serialize_pem()
    }
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "test client CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// Signs policies, each of a higher version than the one before.
pub struct PolicyAuthority {
    key: SigningKey,
    policy: Policy,
}

impl PolicyAuthority {
    /// With a fresh key and a policy of version 0 for `deployment`, which must be changed before it can be signed.
    pub fn new(deployment: &str) -> Self {
        let seed = KeyMaterial::generate(&OsEntropy).expect("randomness");
        let key = SigningKey::from_seed(&seed).expect("32 bytes");
        let deployment = deployment.to_owned();
        let policy =
            Policy { deployment, version: 0, issued_at: SystemClock.now(), grants: Vec::new(), denied: Vec::new() };
        Self { key, policy }
    }

    /// What the image measures of it.
    pub fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    /// The policy that was signed last.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Changes the policy and signs it under the next version.
    pub fn issue(&mut self, change: impl FnOnce(&mut Policy)) -> Vec<u8> {
        self.policy.version += 1;
        change(&mut self.policy);
        self.sign(self.policy.clone())
    }

    /// Orders that a log is taken up again from a copy.
    pub fn restore(&self, (log_id, size, root): (LogId, u64, RootHash), lost_epoch: Epoch) -> Vec<u8> {
        let (deployment, issued_at) = (self.policy.deployment.clone(), SystemClock.now());
        let reason = "the disk died".to_owned();
        let restore = Restore { deployment, log_id, size, root, lost_epoch, issued_at, reason };
        SignedRestore::sign(restore, &self.key).document().to_vec()
    }

    /// Signs any policy.
    pub fn sign(&self, policy: Policy) -> Vec<u8> {
        SignedPolicy::sign(policy, &self.key).document().to_vec()
    }
}

/// One grant.
pub fn grant(principal: &str, key_prefix: &str, operations: &[Operation]) -> Grant {
    Grant {
        principal: principal.parse().expect("a principal"),
        key_prefix: key_prefix.to_owned(),
        operations: operations.iter().copied().collect(),
        caller: None,
    }
}
