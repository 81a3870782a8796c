//! Documents as the NSM writes them, with every part open to be made wrong before it is signed.

use transcode_confidential::{attestation::Pcrs, time::Timestamp};

use super::{key::SigningKey, pki::Chain};

/// What a document says, before it is signed.
#[derive(Debug, Clone)]
pub struct DocumentDraft {
    /// The enclave's name.
    pub module_id: String,
    /// Hash of the registers, `SHA384`.
    pub digest: String,
    /// When it is made.
    pub timestamp: Timestamp,
    /// The locked registers, as number and value.
    pub pcrs: Vec<(u64, Vec<u8>)>,
    /// The leaf certificate.
    pub certificate: Vec<u8>,
    /// Those above it, from the root down.
    pub bundle: Vec<Vec<u8>>,
    /// The attested key.
    pub public_key: Option<Vec<u8>>,
    /// The attested data.
    pub user_data: Option<Vec<u8>>,
    /// The answered challenge.
    pub nonce: Option<Vec<u8>>,
    /// The form of the payload map.
    pub form: Form,
    /// Content of the protected header.
    pub protected: Vec<u8>,
    /// The unprotected header, encoded.
    pub unprotected: Vec<u8>,
}

/// The form of the payload map's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `bf ... ff`, as the NSM writes since August 2025.
    Indefinite,
    /// As it wrote before.
    Definite,
}

impl DocumentDraft {
    /// A document without registers and optional fields, under these certificates.
    pub fn new(module_id: &str, timestamp: Timestamp, chain: &Chain) -> Self {
        let [root, regional, zonal, instance, leaf] = chain.certificates.clone();
        Self {
            module_id: module_id.to_owned(),
            digest: "SHA384".to_owned(),
            timestamp,
            pcrs: Vec::new(),
            certificate: leaf,
            bundle: vec![root, regional, zonal, instance],
            public_key: None,
            user_data: None,
            nonce: None,
            form: Form::Indefinite,
            protected: vec![0xa1, 0x01, 0x38, 0x22],
            unprotected: vec![0xa0],
        }
    }

    /// Lists these registers.
    pub fn set_pcrs(&mut self, pcrs: &Pcrs) {
        self.pcrs = pcrs.iter().map(|(index, value)| (index.get().into(), value.as_bytes().to_vec())).collect();
    }

    /// The fields in the NSM's order, each as encoded key and value.
    pub fn fields(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let optional = |field: &Option<Vec<u8>>| field.as_ref().map_or_else(null, |field| bytes(field));
        let pcrs = self.pcrs.iter().flat_map(|(index, value)| [unsigned(*index), bytes(value)]);
        let pcrs = [head(5, self.pcrs.len() as u64), pcrs.collect::<Vec<_>>().concat()].concat();
        let bundle = self.bundle.iter().map(|der| bytes(der)).collect::<Vec<_>>().concat();
        [
            ("module_id", text(&self.module_id)),
            ("digest", text(&self.digest)),
            ("timestamp", unsigned(self.timestamp.0)),
            ("pcrs", pcrs),
            ("certificate", bytes(&self.certificate)),
            ("cabundle", [head(4, self.bundle.len() as u64), bundle].concat()),
            ("public_key", optional(&self.public_key)),
            ("user_data", optional(&self.user_data)),
            ("nonce", optional(&self.nonce)),
        ]
        .map(|(key, value)| (text(key), value))
        .into()
    }

    /// The payload of these fields.
    pub fn payload_of(&self, fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let content = fields.iter().flat_map(|(key, value)| [key.as_slice(), value]).collect::<Vec<_>>().concat();
        match self.form {
            Form::Indefinite => [&[0xbf], content.as_slice(), &[0xff]].concat(),
            Form::Definite => [head(5, fields.len() as u64), content].concat(),
        }
    }

    /// The payload.
    pub fn payload(&self) -> Vec<u8> {
        self.payload_of(&self.fields())
    }

    /// The document: an untagged COSE_Sign1.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        self.sign_payload(&self.payload(), key)
    }

    /// The document with another payload.
    pub fn sign_payload(&self, payload: &[u8], key: &SigningKey) -> Vec<u8> {
        let signature = key.sign_cose(&signed_bytes(&self.protected, payload));
        cose_sign1(&self.protected, &self.unprotected, payload, &signature)
    }
}

/// The four items of a COSE_Sign1 (RFC 9052 section 4.2).
pub fn cose_sign1(protected: &[u8], unprotected: &[u8], payload: &[u8], signature: &[u8]) -> Vec<u8> {
    [&head(4, 4), &bytes(protected), unprotected, &bytes(payload), &bytes(signature)].map(<[u8]>::to_vec).concat()
}

/// What is signed (RFC 9052 section 4.4).
pub fn signed_bytes(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    [head(4, 4), text("Signature1"), bytes(protected), bytes(&[]), bytes(payload)].concat()
}

/// Head of an item: major type and length or value.
pub fn head(major: u8, value: u64) -> Vec<u8> {
    let be = value.to_be_bytes();
    let (more, tail): (u8, &[u8]) = match value {
        0..=23 => (be[7], &[]),
        24..=0xff => (24, &be[7..]),
        0x100..=0xffff => (25, &be[6..]),
        0x1_0000..=0xffff_ffff => (26, &be[4..]),
        _ => (27, &be),
    };
    [&[major << 5 | more], tail].concat()
}

/// An unsigned integer.
pub fn unsigned(value: u64) -> Vec<u8> {
    head(0, value)
}

/// A byte string.
pub fn bytes(value: &[u8]) -> Vec<u8> {
    [head(2, value.len() as u64), value.to_vec()].concat()
}

/// A text string.
pub fn text(value: &str) -> Vec<u8> {
    [head(3, value.len() as u64), value.as_bytes().to_vec()].concat()
}

/// Null, which stands for an absent field.
pub fn null() -> Vec<u8> {
    vec![0xf6]
}
