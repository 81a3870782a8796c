//! The hypervisor's certificate hierarchy under a root that is made at run time.

use std::{path::Path, time::Duration};

use sha2::{Digest as _, Sha256};
use transcode_confidential::{
    attestation::{Position, TrustRoot},
    time::Timestamp,
};

use super::{
    certificate::{Algorithm, CertificateDraft, Extension, usage},
    key::{Curve, SigningKey},
};

/// Common name of the root, the same as AWS's: a name proves nothing.
const ROOT_NAME: &str = "aws.nitro-enclaves";
const ROOT_FILE: &str = "mock-nsm-root.der";
const ROOT_KEY_FILE: &str = "mock-nsm-root.key";
const REGION: &str = "mock-region-1";
/// Clocks of an instance and of its hypervisor differ a little; genuine certificates start a few seconds early.
const BACKDATED: Duration = Duration::from_secs(3);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A root, and all that hangs below it.
#[derive(Clone)]
pub struct MockPki {
    root_key: SigningKey,
    root: Vec<u8>,
}

impl MockPki {
    /// A fresh root, valid from 2019 to 2049 as AWS's is.
    pub fn generate() -> Self {
        let root_key = SigningKey::generate(Curve::P384);
        let root = root_draft(&root_key).sign(&root_key);
        Self { root_key, root }
    }

    /// A fresh root whose certificate has exactly so many bytes, so that it can stand in the place of another one.
    ///
    /// # Panics
    /// Where no root is as short as that.
    pub fn generate_of_length(length: usize) -> Self {
        let root_key = SigningKey::generate(Curve::P384);
        let mut draft = root_draft(&root_key);
        let mut padding = 0;
        // A signature has one length or another, so the padding that fits is found by trying.
        loop {
            draft.set(Extension::padding(padding));
            let root = draft.sign(&root_key);
            if root.len() == length {
                return Self { root_key, root };
            }
            padding = (padding + length).checked_sub(root.len()).expect("a root of that length");
        }
    }

    /// Takes up a root that [`MockPki::save`] wrote.
    ///
    /// # Panics
    /// Where there is none in `dir`.
    pub fn load(dir: &Path) -> Self {
        let read = |name| std::fs::read(dir.join(name)).expect("a saved root");
        Self { root_key: SigningKey::from_pkcs8(Curve::P384, read(ROOT_KEY_FILE)), root: read(ROOT_FILE) }
    }

    /// Writes the root, private key included, so that enclaves of another process hang under it too.
    ///
    /// # Panics
    /// Where `dir` cannot be written.
    pub fn save(&self, dir: &Path) {
        std::fs::write(dir.join(ROOT_FILE), &self.root).expect("a writable directory");
        std::fs::write(dir.join(ROOT_KEY_FILE), self.root_key.pkcs8()).expect("a writable directory");
    }

    /// What a verifier must trust to believe documents of this hierarchy.
    pub fn trust_root(&self) -> TrustRoot {
        TrustRoot::from_der(&self.root).unwrap()
    }

    /// The same as a file for `--root`.
    pub fn root_pem(&self) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&self.root);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    /// Certificates for an enclave that is launched, or lives on, at that time.
    pub fn issue(&self, module_id: &str, now: Timestamp) -> Chain {
        self.draft(module_id, now).sign()
    }

    /// The same before they are signed, for tests that want them wrong.
    pub fn draft(&self, module_id: &str, now: Timestamp) -> ChainDraft {
        let keys = std::array::from_fn(|index| match index {
            0 => self.root_key.clone(),
            _ => SigningKey::generate(Curve::P384),
        });
        let [root_key, regional_key, zonal_key, instance_key, leaf_key] = &keys;
        let instance_id = module_id.split("-enc").next().unwrap_or(module_id);
        let regional_name = format!("{}.{REGION}.{ROOT_NAME}", short_id(regional_key));
        let zonal_name = format!("{}.zonal.{REGION}.{ROOT_NAME}", short_id(zonal_key));
        let instance_name = format!("{instance_id}.{REGION}.{ROOT_NAME}");
        let leaf_name = format!("{module_id}.{REGION}.aws");

        let mut root = root_draft(root_key);
        root.serial = vec![1];
        let regional = CertificateDraft {
            not_before: now.minus(4 * DAY),
            not_after: now.plus(16 * DAY),
            extensions: authority_extensions(regional_key, Some(root_key), 2),
            ..draft(ROOT_NAME, &regional_name, regional_key)
        };
        let zonal = CertificateDraft {
            not_before: now.minus(DAY),
            not_after: now.plus(5 * DAY),
            extensions: authority_extensions(zonal_key, Some(regional_key), 1),
            ..draft(&regional_name, &zonal_name, zonal_key)
        };
        let instance = CertificateDraft {
            not_before: now.minus(HOUR),
            not_after: now.plus(23 * HOUR),
            extensions: vec![
                Extension::authority(Some(0)),
                Extension::key_usage(usage::CERTIFY),
                Extension::own_key_id(&key_id(instance_key)),
                Extension::issuer_key_id(&key_id(zonal_key)),
            ],
            ..draft(&zonal_name, &instance_name, instance_key)
        };
        let mut leaf_usage = Extension::key_usage(usage::SIGN | usage::COMMIT);
        leaf_usage.critical = false;
        let leaf = CertificateDraft {
            not_before: now.minus(BACKDATED),
            not_after: now.plus(3 * HOUR),
            extensions: vec![Extension::no_authority(), leaf_usage],
            ..draft(&instance_name, &leaf_name, leaf_key)
        };
        ChainDraft { certificates: [root, regional, zonal, instance, leaf], keys, root: Some(self.root.clone()) }
    }
}

/// Five certificates and the key of the leaf.
#[derive(Clone)]
pub struct Chain {
    /// From the root to the leaf, DER.
    pub certificates: [Vec<u8>; 5],
    /// The key that signs documents.
    pub leaf_key: SigningKey,
    /// From when to when all of them are valid.
    pub valid: (Timestamp, Timestamp),
}

/// Five certificates that are not signed yet.
#[derive(Clone)]
pub struct ChainDraft {
    /// From the root to the leaf.
    pub certificates: [CertificateDraft; 5],
    /// Their keys, each of which signs the next certificate, and the first itself.
    pub keys: [SigningKey; 5],
    root: Option<Vec<u8>>,
}

impl ChainDraft {
    /// The certificate at a place. A root that was touched is signed anew, so it is another root then.
    pub fn at(&mut self, position: Position) -> &mut CertificateDraft {
        let index = index_of(position);
        if position == Position::Root {
            self.root = None;
        }
        &mut self.certificates[index]
    }

    /// Gives the certificate at a place another key, with which it signs the next one.
    pub fn replace_key(&mut self, position: Position, key: SigningKey) {
        let info = key.public_key_info();
        self.at(position).public_key_info = info;
        self.keys[index_of(position)] = key;
    }

    /// Signs all of them.
    pub fn sign(&self) -> Chain {
        let certificates = std::array::from_fn(|index| match (&self.root, index) {
            (Some(root), 0) => root.clone(),
            _ => self.certificates[index].sign(&self.keys[index.saturating_sub(1)]),
        });
        let from = self.certificates.iter().map(|certificate| certificate.not_before).max();
        let to = self.certificates.iter().map(|certificate| certificate.not_after).min();
        Chain { certificates, leaf_key: self.keys[4].clone(), valid: (from.unwrap(), to.unwrap()) }
    }
}

/// The place of a certificate in the arrays here.
pub fn index_of(position: Position) -> usize {
    Position::ALL.iter().position(|each| *each == position).unwrap()
}

fn root_draft(key: &SigningKey) -> CertificateDraft {
    CertificateDraft {
        serial: vec![1],
        not_before: "2019-10-28T13:28:05Z".parse().unwrap(),
        not_after: "2049-10-28T14:28:05Z".parse().unwrap(),
        extensions: vec![
            Extension::authority(None),
            Extension::own_key_id(&key_id(key)),
            Extension::key_usage(usage::SIGN | usage::CERTIFY | usage::REVOKE),
        ],
        ..draft(ROOT_NAME, ROOT_NAME, key)
    }
}

fn draft(issuer: &str, subject: &str, key: &SigningKey) -> CertificateDraft {
    CertificateDraft {
        version: Some(2),
        serial: [&[1], &key_id(key)[..15]].concat(),
        inner_algorithm: Algorithm::EcdsaWithSha384,
        outer_algorithm: Algorithm::EcdsaWithSha384,
        issuer: issuer.to_owned(),
        not_before: Timestamp(0),
        not_after: Timestamp(0),
        subject: subject.to_owned(),
        public_key_info: key.public_key_info(),
        extensions: Vec::new(),
    }
}

fn authority_extensions(own: &SigningKey, issuer: Option<&SigningKey>, path_length: u8) -> Vec<Extension> {
    let mut extensions = vec![Extension::authority(Some(path_length))];
    extensions.extend(issuer.map(|issuer| Extension::issuer_key_id(&key_id(issuer))));
    extensions.push(Extension::own_key_id(&key_id(own)));
    extensions.push(Extension::key_usage(usage::SIGN | usage::CERTIFY | usage::REVOKE));
    extensions
}

fn key_id(key: &SigningKey) -> [u8; 20] {
    let digest: [u8; 32] = Sha256::digest(key.point()).into();
    std::array::from_fn(|index| digest[index])
}

fn short_id(key: &SigningKey) -> String {
    hex::encode(&key_id(key)[..8])
}
