//! What a document says: its payload, mapped strictly from items that passed the scanner.

use super::{
    pcr::{PcrIndex, PcrValue, Pcrs},
    refusal::Refusal,
    scan::Item,
};
use crate::time::Timestamp;

/// Bounds of the AWS specification for certificates and keys. `user_data` of 746 bytes occurs in genuine documents, so
/// the optional fields are bounded by the size of a request to the NSM instead.
const MAX_MODULE_ID: usize = 128;
const MAX_CERTIFICATE: usize = 1024;
const MAX_OPTIONAL: usize = 4096;

/// The content of a document. By itself it proves nothing: within a
/// [`VerifiedDocument`](super::VerifiedDocument) it is authentic, within an
/// [`UnverifiedDocument`](super::UnverifiedDocument) anybody may have written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    module_id: String,
    timestamp: Timestamp,
    pcrs: Pcrs,
    certificate: Vec<u8>,
    bundle: Vec<Vec<u8>>,
    public_key: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
}

impl Claims {
    /// The enclave: `i-<instance>-enc<enclave>`.
    pub fn module_id(&self) -> &str {
        &self.module_id
    }

    /// When the NSM made the document.
    pub const fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// The locked registers.
    pub const fn pcrs(&self) -> &Pcrs {
        &self.pcrs
    }

    /// The key that the enclave asked to have attested; DER in this project's documents, possibly empty in others.
    pub fn public_key(&self) -> Option<&[u8]> {
        self.public_key.as_deref()
    }

    /// The data that the enclave asked to have attested.
    pub fn user_data(&self) -> Option<&[u8]> {
        self.user_data.as_deref()
    }

    /// The nonce that the enclave was given.
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }

    /// The leaf certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The certificates above the leaf in DER, from the root down.
    pub fn bundle(&self) -> &[Vec<u8>] {
        &self.bundle
    }

    pub(super) fn map(payload: Item<'_>) -> Result<Self, Refusal> {
        let mut fields = Fields::of(payload)?;
        let digest = fields.text("digest")?;
        if digest != "SHA384" {
            return Err(Refusal::DigestAlgorithm { found: digest.chars().take(32).collect() });
        }
        let claims = Self {
            module_id: module_id(fields.text("module_id")?)?,
            timestamp: timestamp(fields.required("timestamp")?)?,
            pcrs: pcrs(fields.required("pcrs")?)?,
            certificate: certificate("certificate", fields.required("certificate")?)?,
            bundle: bundle(fields.required("cabundle")?)?,
            public_key: fields.optional("public_key")?,
            user_data: fields.optional("user_data")?,
            nonce: fields.optional("nonce")?,
        };
        fields.end()?;
        Ok(claims)
    }
}

/// The payload's fields by name, taken out one by one.
struct Fields<'a>(Vec<(&'a str, Item<'a>)>);

impl<'a> Fields<'a> {
    fn of(payload: Item<'a>) -> Result<Self, Refusal> {
        let Item::Map(pairs) = payload else { return Err(Refusal::FieldType { name: "payload" }) };
        let mut fields = Vec::new();
        for (key, value) in pairs {
            match key {
                Item::Text("nitrotpm_pcrs") => return Err(Refusal::NotAnEnclave),
                Item::Text(name) => fields.push((name, value)),
                Item::Unsigned(number) => return Err(Refusal::UnknownField { name: number.to_string() }),
                _ => return Err(Refusal::FieldType { name: "payload" }),
            }
        }
        Ok(Self(fields))
    }

    fn take(&mut self, name: &str) -> Option<Item<'a>> {
        let index = self.0.iter().position(|(key, _)| *key == name)?;
        Some(self.0.swap_remove(index).1)
    }

    fn required(&mut self, name: &'static str) -> Result<Item<'a>, Refusal> {
        self.take(name).ok_or(Refusal::MissingField { name })
    }

    fn text(&mut self, name: &'static str) -> Result<&'a str, Refusal> {
        match self.required(name)? {
            Item::Text(text) => Ok(text),
            _ => Err(Refusal::FieldType { name }),
        }
    }

    /// Null stands for absence; leaving the field out is allowed too.
    fn optional(&mut self, name: &'static str) -> Result<Option<Vec<u8>>, Refusal> {
        match self.take(name) {
            None | Some(Item::Null) => Ok(None),
            Some(Item::Bytes(bytes)) if bytes.len() <= MAX_OPTIONAL => Ok(Some(bytes.to_vec())),
            Some(Item::Bytes(_)) => Err(Refusal::FieldRange { name }),
            Some(_) => Err(Refusal::FieldType { name }),
        }
    }

    fn end(self) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::UnknownField { name: name.chars().take(32).collect() }),
        }
    }
}

fn module_id(text: &str) -> Result<String, Refusal> {
    let fits = (1..=MAX_MODULE_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err(Refusal::FieldRange { name: "module_id" }) }
}

fn timestamp(item: Item<'_>) -> Result<Timestamp, Refusal> {
    match item {
        Item::Unsigned(0) => Err(Refusal::FieldRange { name: "timestamp" }),
        Item::Unsigned(millis) => Ok(Timestamp(millis)),
        _ => Err(Refusal::FieldType { name: "timestamp" }),
    }
}

fn pcrs(item: Item<'_>) -> Result<Pcrs, Refusal> {
    const NAME: &str = "pcrs";
    let Item::Map(pairs) = item else { return Err(Refusal::FieldType { name: NAME }) };
    if pairs.is_empty() {
        return Err(Refusal::FieldRange { name: NAME });
    }
    pairs
        .into_iter()
        .map(|pair| {
            let (Item::Unsigned(index), Item::Bytes(value)) = pair else {
                return Err(Refusal::FieldType { name: NAME });
            };
            let index = u8::try_from(index).ok().and_then(PcrIndex::new).ok_or(Refusal::FieldRange { name: NAME })?;
            let value = PcrValue::try_from(value).map_err(|_| Refusal::FieldRange { name: NAME })?;
            Ok((index, value))
        })
        .collect()
}

fn certificate(name: &'static str, item: Item<'_>) -> Result<Vec<u8>, Refusal> {
    match item {
        Item::Bytes(der) if (1..=MAX_CERTIFICATE).contains(&der.len()) => Ok(der.to_vec()),
        Item::Bytes(_) => Err(Refusal::FieldRange { name }),
        _ => Err(Refusal::FieldType { name }),
    }
}

fn bundle(item: Item<'_>) -> Result<Vec<Vec<u8>>, Refusal> {
    const NAME: &str = "cabundle";
    match item {
        Item::Array(items) if items.is_empty() => Err(Refusal::FieldRange { name: NAME }),
        Item::Array(items) => items.into_iter().map(|item| certificate(NAME, item)).collect(),
        _ => Err(Refusal::FieldType { name: NAME }),
    }
}
