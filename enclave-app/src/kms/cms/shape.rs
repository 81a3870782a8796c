use cms::{
    content_info::{CmsVersion, ContentInfo},
    enveloped_data::{EncryptedContentInfo, EnvelopedData, KeyTransRecipientInfo, RecipientIdentifier, RecipientInfo},
};
use der::{Decode, EncodingRules, Tag, Tagged, asn1::ObjectIdentifier};
use subtle::ConstantTimeEq;

use super::MAX_ENVELOPE;
use crate::kms::recipient::RecipientKey;

const ENVELOPED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.3");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const RSAES_OAEP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7");
const AES_256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");
const BLOCK: usize = 16;

/// RSAES-OAEP-params (RFC 8017 appendix A.2.1): SHA-256, MGF1 with SHA-256, the empty label by default; the contents of
/// the SEQUENCE. RFC 4055 section 2.1 has SHA-256's parameters be NULL or absent, and both be accepted.
const OAEP_SHA_256: [&[u8]; 2] = [
    b"\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
      \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
      \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00",
    b"\xa0\x0d\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\
      \xa1\x1a\x30\x18\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
      \x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01",
];

/// An envelope whose every field that is not secret has been checked.
pub(super) struct Sealed {
    encrypted_key: Vec<u8>,
    iv: [u8; BLOCK],
    ciphertext: Vec<u8>,
}

impl Sealed {
    /// Reads the structure; `None` for anything but the one shape that KMS sends to the recipient `key_id`.
    pub(super) fn read(envelope: &[u8], key_id: &[u8; 32]) -> Option<Self> {
        if envelope.len() > MAX_ENVELOPE {
            return None;
        }
        let outer = ContentInfo::from_ber(envelope).ok().filter(|outer| outer.content_type == ENVELOPED_DATA)?;
        let inner: EnvelopedData = outer.content.decode_as_encoding(EncodingRules::Ber).ok()?;
        let EnvelopedData {
            version: CmsVersion::V2,
            originator_info: None,
            recip_infos,
            encrypted_content,
            unprotected_attrs: None,
        } = inner
        else {
            return None;
        };
        let [RecipientInfo::Ktri(recipient)] = recip_infos.0.as_slice() else { return None };
        let encrypted_key = encrypted_key(recipient, key_id)?;
        let (iv, ciphertext) = content(encrypted_content)?;
        Some(Self { encrypted_key, iv, ciphertext })
    }

    pub(super) fn encrypted_key(&self) -> &[u8] {
        &self.encrypted_key
    }

    pub(super) const fn iv(&self) -> [u8; BLOCK] {
        self.iv
    }

    /// A positive number of whole blocks.
    pub(super) fn ciphertext(&self) -> &[u8] {
        &self.ciphertext
    }
}

fn encrypted_key(recipient: &KeyTransRecipientInfo, key_id: &[u8; 32]) -> Option<Vec<u8>> {
    let RecipientIdentifier::SubjectKeyIdentifier(named) = &recipient.rid else { return None };
    let algorithm = &recipient.key_enc_alg;
    let parameters = algorithm.parameters.as_ref().filter(|parameters| parameters.tag() == Tag::Sequence)?;
    let is_ours = recipient.version == CmsVersion::V2
        && bool::from(named.0.as_bytes().ct_eq(key_id))
        && algorithm.oid == RSAES_OAEP
        && OAEP_SHA_256.contains(&parameters.value())
        && recipient.enc_key.as_bytes().len() == RecipientKey::MODULUS;
    is_ours.then(|| recipient.enc_key.as_bytes().to_vec())
}

fn content(info: EncryptedContentInfo) -> Option<([u8; BLOCK], Vec<u8>)> {
    let algorithm = &info.content_enc_alg;
    let parameters = algorithm.parameters.as_ref().filter(|parameters| parameters.tag() == Tag::OctetString)?;
    let iv = parameters.value().try_into().ok()?;
    let ciphertext = info.encrypted_content?.into_bytes().into_vec();
    let is_ours = info.content_type == DATA
        && algorithm.oid == AES_256_CBC
        && !ciphertext.is_empty()
        && ciphertext.len().is_multiple_of(BLOCK);
    is_ours.then_some((iv, ciphertext))
}
