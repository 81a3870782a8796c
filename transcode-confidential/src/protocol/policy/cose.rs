//! The envelope of what the policy authority signs: a tagged COSE_Sign1 with EdDSA, and external data that says what kind of
//! document it is.

use super::{DOCUMENT_LIMIT, PolicyError};
use crate::{
    cbor::{CborError, Reader, Writer},
    signature::{PublicKey, Signature, SigningKey},
};

/// CBOR tag 18, array of four: the start of a tagged COSE_Sign1.
const COSE_SIGN1: [u8; 2] = [0xd2, 0x84];
/// `{1: -8}`: algorithm EdDSA.
const PROTECTED: [u8; 3] = [0xa1, 0x01, 0x27];

/// The document of a payload.
pub(in crate::protocol) fn sign(external: &[u8], payload: &[u8], authority: &SigningKey) -> Vec<u8> {
    let signature = authority.sign_bare(&sig_structure(external, payload));
    let mut out = Writer::after(COSE_SIGN1.to_vec());
    out.bytes(&PROTECTED).map(0).bytes(payload).bytes(signature.as_bytes());
    out.into_bytes()
}

/// The payload of a document that the authority signed for this use.
pub(in crate::protocol) fn open<'d>(
    external: &[u8],
    document: &'d [u8],
    authority: &PublicKey,
) -> Result<&'d [u8], PolicyError> {
    if document.len() > DOCUMENT_LIMIT {
        return Err(PolicyError::TooLong(document.len()));
    }
    let (payload, signature) = split(document)?;
    authority.verify_bare(&sig_structure(external, payload), &signature).map_err(|_| PolicyError::Signature)?;
    Ok(payload)
}

/// The payload of a document that nothing was verified of.
pub(in crate::protocol) fn payload(document: &[u8]) -> Result<&[u8], CborError> {
    split(document).map(|(payload, _)| payload)
}

fn split(document: &[u8]) -> Result<(&[u8], Signature), CborError> {
    let rest = document.strip_prefix(&COSE_SIGN1).ok_or(CborError::Type)?;
    let mut reader = Reader::new(rest);
    if reader.bytes(PROTECTED.len())? != PROTECTED {
        return Err(CborError::Range);
    }
    reader.int_map(0)?.end()?;
    let payload = reader.bytes(DOCUMENT_LIMIT)?;
    let signature = Signature::new(reader.array_of()?);
    reader.end()?;
    Ok((payload, signature))
}

/// RFC 9052 section 4.4.
fn sig_structure(external: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Writer::new();
    out.array(4).text("Signature1").bytes(&PROTECTED).bytes(external).bytes(payload);
    out.into_bytes()
}
