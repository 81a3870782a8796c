//! The signature section of an image: a CBOR list of certificate (PEM) and COSE_Sign1 over `{register_index, register_value}`.

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, UnparsedPublicKey,
};
use ciborium::Value;
use transcode_confidential::attestation::{PcrIndex, Pcrs};
use x509_cert::{
    Certificate,
    der::{DecodePem as _, Encode as _},
};

/// The signing certificate, DER.
pub(crate) fn certificate(section: &[u8]) -> anyhow::Result<Vec<u8>> {
    Ok(parse(section)?.0.to_der()?)
}

/// Whether the section's one signature is over this PCR0, by the key of its certificate.
pub(crate) fn check(section: &[u8], pcrs: &Pcrs) -> anyhow::Result<()> {
    let (certificate, cose) = parse(section)?;
    let cose = match read(&cose)? {
        Value::Tag(18, cose) => *cose,
        other => other,
    };
    let Value::Array(parts) = cose else { bail!("the signature is no COSE_Sign1") };
    let [Value::Bytes(protected), Value::Map(_), Value::Bytes(payload), Value::Bytes(signature)] = parts.as_slice()
    else {
        bail!("the signature is no COSE_Sign1")
    };
    let algorithm = match read(protected)?.as_map().and_then(|map| map.first()) {
        Some((Value::Integer(key), Value::Integer(algorithm))) if *key == 1.into() => i128::from(*algorithm),
        _ => bail!("the signature names no algorithm"),
    };
    let algorithm = match algorithm {
        -7 => &ECDSA_P256_SHA256_FIXED,
        -35 => &ECDSA_P384_SHA384_FIXED,
        -36 => &ECDSA_P521_SHA512_FIXED,
        other => bail!("the signature is of algorithm {other}"),
    };
    let signed = Value::Array(vec![
        Value::Text("Signature1".to_owned()),
        Value::Bytes(protected.clone()),
        Value::Bytes(Vec::new()),
        Value::Bytes(payload.clone()),
    ]);
    let mut message = Vec::new();
    ciborium::into_writer(&signed, &mut message)?;
    let key = certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec();
    let verified = UnparsedPublicKey::new(algorithm, key).verify(&message, signature);
    ensure!(verified.is_ok(), "the signature does not fit its certificate");

    let payload = read(payload)?;
    let (Some(index), Some(value)) = (field(&payload, "register_index"), field(&payload, "register_value")) else {
        bail!("the signature is over no register")
    };
    ensure!(index.as_integer() == Some(0.into()), "the signature is over another register than PCR0");
    let measured = pcrs.get(PcrIndex::IMAGE).context("PCR0")?;
    ensure!(bytes(value)? == measured.as_bytes().as_slice(), "the signature is over another PCR0: of another image");
    Ok(())
}

fn parse(section: &[u8]) -> anyhow::Result<(Certificate, Vec<u8>)> {
    let Value::Array(list) = read(section)? else { bail!("the signature section is no list") };
    let [signature] = list.as_slice() else { bail!("{} signatures, one is expected", list.len()) };
    let (Some(certificate), Some(cose)) = (field(signature, "signing_certificate"), field(signature, "signature"))
    else {
        bail!("the signature section lacks certificate or signature")
    };
    let certificate = Certificate::from_pem(bytes(certificate)?).context("the signing certificate")?;
    Ok((certificate, bytes(cose)?))
}

fn read(cbor: &[u8]) -> anyhow::Result<Value> {
    ciborium::from_reader(cbor).context("malformed CBOR in the signature section")
}

fn field<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    map.as_map()?.iter().find_map(|(key, value)| (key.as_text() == Some(name)).then_some(value))
}

/// Byte strings are written as lists of integers there.
fn bytes(value: &Value) -> anyhow::Result<Vec<u8>> {
    match value {
        Value::Bytes(bytes) => Ok(bytes.clone()),
        Value::Array(list) => {
            let byte = |value: &Value| value.as_integer().and_then(|number| u8::try_from(number).ok());
            list.iter().map(byte).collect::<Option<_>>().context("a byte that is none")
        }
        _ => bail!("bytes that are none"),
    }
}
