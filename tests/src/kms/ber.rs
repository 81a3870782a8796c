//! CMS EnvelopedData as KMS sends it, encoded by hand: BER with indefinite lengths (X.690 section 8.1.3.6).

use aws_lc_rs::{
    cipher::{AES_256, DecryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey},
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey},
};
use sha2::{Digest, Sha256};

/// How the encrypted content is written. KMS has been seen to use each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentShape {
    /// `A0 80`, one OCTET STRING, end of contents.
    #[default]
    Constructed,
    /// `80 length`, the bytes.
    Primitive,
    /// `A0 80`, OCTET STRINGs of at most that many bytes, end of contents.
    Segmented(usize),
}

impl ContentShape {
    /// One of each kind.
    pub const ALL: [Self; 4] = [Self::Constructed, Self::Primitive, Self::Segmented(16), Self::Segmented(1000)];
}

/// Seals `plaintext` to an RSA key that is given as SubjectPublicKeyInfo; `None` where that is no RSA key.
pub fn seal(spki: &[u8], plaintext: &[u8], shape: ContentShape) -> Option<Vec<u8>> {
    let mut content_key = [0; 32];
    aws_lc_rs::rand::fill(&mut content_key).ok()?;
    let mut content = plaintext.to_vec();
    let cipher = PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, &content_key).ok()?).ok()?;
    let DecryptionContext::Iv128(iv) = cipher.encrypt(&mut content).ok()? else { return None };
    let parts = Parts::new(spki, encrypt_key(spki, &content_key)?, iv.as_ref(), &content);
    Some(parts.encode(shape))
}

/// RSAES-OAEP with SHA-256 throughout.
pub fn encrypt_key(spki: &[u8], content_key: &[u8]) -> Option<Vec<u8>> {
    let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(spki).ok()?).ok()?;
    let mut encrypted = vec![0; key.ciphertext_size()];
    let length = key.encrypt(&OAEP_SHA256_MGF1SHA256, content_key, &mut encrypted, None).ok()?.len();
    encrypted.truncate(length);
    Some(encrypted)
}

/// Everything in an envelope that a test may want to get wrong.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Object identifier of the outer content, encoded.
    pub outer_type: Vec<u8>,
    /// CMSVersion of the EnvelopedData.
    pub version: u8,
    /// Encoded fields between version and recipients: originatorInfo.
    pub before_recipients: Vec<u8>,
    /// Encoded RecipientInfos, without the SET around them.
    pub recipients: Vec<Vec<u8>>,
    /// Object identifier of the encrypted content, encoded.
    pub inner_type: Vec<u8>,
    /// AlgorithmIdentifier of the content encryption, encoded.
    pub content_algorithm: Vec<u8>,
    /// The ciphertext.
    pub ciphertext: Vec<u8>,
    /// Encoded fields after the content: unprotectedAttrs.
    pub after_content: Vec<u8>,
}

/// Everything in a KeyTransRecipientInfo.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// CMSVersion.
    pub version: u8,
    /// RecipientIdentifier, encoded.
    pub identifier: Vec<u8>,
    /// AlgorithmIdentifier of the key encryption, encoded.
    pub algorithm: Vec<u8>,
    /// The encrypted key.
    pub encrypted_key: Vec<u8>,
}

impl Recipient {
    /// As KMS writes it.
    pub fn new(spki: &[u8], encrypted_key: Vec<u8>) -> Self {
        let identifier = primitive(0x80, &Sha256::digest(spki));
        Self { version: 2, identifier, algorithm: oaep_sha256(), encrypted_key }
    }

    /// The encoded KeyTransRecipientInfo.
    pub fn encode(&self) -> Vec<u8> {
        let body = [
            integer(self.version),
            self.identifier.clone(),
            self.algorithm.clone(),
            primitive(OCTET_STRING, &self.encrypted_key),
        ];
        primitive(SEQUENCE, &body.concat())
    }
}

impl Parts {
    /// As KMS writes them.
    pub fn new(spki: &[u8], encrypted_key: Vec<u8>, iv: &[u8], ciphertext: &[u8]) -> Self {
        Self {
            outer_type: oid(ENVELOPED_DATA),
            version: 2,
            before_recipients: Vec::new(),
            recipients: vec![Recipient::new(spki, encrypted_key).encode()],
            inner_type: oid(DATA),
            content_algorithm: primitive(SEQUENCE, &[oid(AES_256_CBC), primitive(OCTET_STRING, iv)].concat()),
            ciphertext: ciphertext.to_vec(),
            after_content: Vec::new(),
        }
    }

    /// The encoded ContentInfo.
    pub fn encode(&self, shape: ContentShape) -> Vec<u8> {
        let content = match shape {
            ContentShape::Primitive => primitive(0x80, &self.ciphertext),
            ContentShape::Constructed => indefinite(0xa0, &primitive(OCTET_STRING, &self.ciphertext)),
            ContentShape::Segmented(size) => {
                let segments = self.ciphertext.chunks(size).map(|chunk| primitive(OCTET_STRING, chunk));
                indefinite(0xa0, &segments.collect::<Vec<_>>().concat())
            }
        };
        let content_info = [self.inner_type.clone(), self.content_algorithm.clone(), content].concat();
        let enveloped = [
            integer(self.version),
            self.before_recipients.clone(),
            primitive(SET, &self.recipients.concat()),
            indefinite(SEQUENCE, &content_info),
            self.after_content.clone(),
        ];
        let inner = indefinite(0xa0, &indefinite(SEQUENCE, &enveloped.concat()));
        indefinite(SEQUENCE, &[self.outer_type.clone(), inner].concat())
    }
}

/// `tag length value`, the length in its shortest form.
pub fn primitive(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match value.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long => {
            let bytes = (long as u64).to_be_bytes();
            let used = &bytes[bytes.iter().take_while(|&&byte| byte == 0).count()..];
            out.push(0x80 | used.len() as u8);
            out.extend_from_slice(used);
        }
    }
    out.extend_from_slice(value);
    out
}

/// `tag 80 value 00 00`.
pub fn indefinite(tag: u8, value: &[u8]) -> Vec<u8> {
    [&[tag, 0x80], value, &[0, 0]].concat()
}

/// A small INTEGER.
pub fn integer(value: u8) -> Vec<u8> {
    vec![0x02, 0x01, value]
}

/// An OBJECT IDENTIFIER by its contents.
pub fn oid(contents: &[u8]) -> Vec<u8> {
    primitive(0x06, contents)
}

/// AlgorithmIdentifier of RSAES-OAEP with SHA-256 and MGF1-SHA-256, parameters as AWS writes them.
pub fn oaep_sha256() -> Vec<u8> {
    let sha256 = primitive(SEQUENCE, &[oid(SHA_256), vec![0x05, 0x00]].concat());
    let mgf1 = primitive(SEQUENCE, &[oid(MGF1), sha256.clone()].concat());
    let parameters = primitive(SEQUENCE, &[primitive(0xa0, &sha256), primitive(0xa1, &mgf1)].concat());
    primitive(SEQUENCE, &[oid(RSAES_OAEP), parameters].concat())
}

/// Universal tag SEQUENCE.
pub const SEQUENCE: u8 = 0x30;
/// Universal tag SET.
pub const SET: u8 = 0x31;
/// Universal tag OCTET STRING.
pub const OCTET_STRING: u8 = 0x04;

/// 1.2.840.113549.1.7.3
pub const ENVELOPED_DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03";
/// 1.2.840.113549.1.7.1
pub const DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
/// 1.2.840.113549.1.1.7
pub const RSAES_OAEP: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07";
/// 1.2.840.113549.1.1.8
pub const MGF1: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08";
/// 2.16.840.1.101.3.4.2.1
pub const SHA_256: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x01";
/// 2.16.840.1.101.3.4.1.42
pub const AES_256_CBC: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x01\x2a";
