//! The leaf: the bytes of one event, which the chain and the tree hash.
//!
//! A leaf is a deterministic CBOR map with integer keys (`docs/PROTOCOL.md`, "Leaf"). The leaf hash of the event before
//! is inside, so the leaf hashes form a chain as well as the leaves of a tree, at the cost of one hash.

use thiserror::Error;

use super::{
    body::{self, EventBody},
    event::{AuditEvent, AuditEventType, AuditSeverity, EventDraft},
    request_tag::RequestTag,
    tagged::tagged_sha256,
};
use crate::{
    cbor::{CborError, MapReader, Reader, Writer},
    ids::{Epoch, KeyVersion, LeafHash, Sequence},
    time::Timestamp,
};

/// Greatest length of a leaf, in bytes: what a tlog-tiles entry bundle can hold.
pub const LEAF_LIMIT: usize = 65_535;
/// Greatest length of `details`, in bytes.
pub const DETAILS_LIMIT: usize = 4096;
/// Greatest length of an enclave id, key id, principal or content id, in bytes.
pub const NAME_LIMIT: usize = 256;

const LEAF_VERSION: u64 = 1;
const FIELDS: usize = 15;

/// Why some bytes are not a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LeafError {
    /// Not the deterministic CBOR of a leaf.
    #[error("not a leaf: {0}")]
    Encoding(#[from] CborError),
    /// A leaf of a version that this code does not know.
    #[error("leaf version {0} is not known")]
    Version(u64),
    /// An event type that this code does not know.
    #[error("event type {0} is not known")]
    EventType(u64),
    /// Longer than [`LEAF_LIMIT`].
    #[error("the leaf has {0} bytes, more than {LEAF_LIMIT}")]
    TooLong(usize),
    /// A text of the draft is longer than its limit.
    #[error("{field} has {got} bytes, more than {limit}")]
    Text {
        /// The field.
        field: &'static str,
        /// Its length in bytes.
        got: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// `SHA-256(0x00 || leaf)`, RFC 6962 section 2.1.
pub fn leaf_hash(leaf: &[u8]) -> LeafHash {
    LeafHash::new(tagged_sha256(0x00, leaf))
}

/// Where an event stands in its log: what the chain adds to a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sequence: Sequence,
    pub(super) epoch: Epoch,
    pub(super) time: Timestamp,
    pub(super) previous: LeafHash,
}

/// What an event says, wherever that is kept; its body is borrowed where somebody has it.
pub(super) struct Said<'a, B = &'a EventBody> {
    event_type: AuditEventType,
    severity: AuditSeverity,
    enclave_id: Option<&'a str>,
    key_id: Option<&'a str>,
    key_version: Option<KeyVersion>,
    principal: Option<&'a str>,
    content_id: Option<&'a str>,
    details: &'a str,
    pub(super) body: Option<B>,
    request: Option<RequestTag>,
}

macro_rules! said_by {
    ($speaker:ty) => {
        impl<'a> From<&'a $speaker> for Said<'a> {
            fn from(speaker: &'a $speaker) -> Self {
                Self {
                    event_type: speaker.event_type,
                    severity: speaker.severity,
                    enclave_id: speaker.enclave_id.as_deref(),
                    key_id: speaker.key_id.as_deref(),
                    key_version: speaker.key_version,
                    principal: speaker.principal.as_deref(),
                    content_id: speaker.content_id.as_deref(),
                    details: &speaker.details,
                    body: speaker.body.as_ref(),
                    request: speaker.request,
                }
            }
        }
    };
}
said_by!(EventDraft);
said_by!(AuditEvent);

/// Encodes what an event says at its place, behind whatever `out` holds.
///
/// # Errors
/// [`LeafError::Text`] where a text is too long; nothing is cut silently, and `out` is as it was.
pub(super) fn encode(place: &Place, said: &Said<'_>, out: &mut Vec<u8>) -> Result<(), LeafError> {
    let start = out.len();
    let mut writer = Writer::after(std::mem::take(out));
    let written = put_fields(&mut writer, place, said);
    *out = writer.into_bytes();
    let length = out.len() - start;
    let result = written.and(if length > LEAF_LIMIT { Err(LeafError::TooLong(length)) } else { Ok(()) });
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn put_fields(out: &mut Writer, place: &Place, said: &Said<'_>) -> Result<(), LeafError> {
    within("details", said.details, DETAILS_LIMIT)?;
    let optional = [
        said.enclave_id.is_some(),
        said.key_id.is_some(),
        said.key_version.is_some(),
        said.principal.is_some(),
        said.content_id.is_some(),
        said.body.is_some(),
        said.request.is_some(),
    ];
    out.map(8 + optional.into_iter().filter(|given| *given).count());
    out.uint(0).uint(LEAF_VERSION);
    out.uint(1).uint(place.sequence.0);
    out.uint(2).uint(place.epoch.0);
    out.uint(3).uint(place.time.0);
    out.uint(4).uint(said.event_type.code());
    out.uint(5).uint(said.severity as u64);
    out.uint(6).bytes(place.previous.as_bytes());
    put_name(out, 7, "enclave id", said.enclave_id)?;
    put_name(out, 8, "key id", said.key_id)?;
    if let Some(version) = said.key_version {
        out.uint(9).uint(u64::from(version.0));
    }
    put_name(out, 10, "principal", said.principal)?;
    put_name(out, 11, "content id", said.content_id)?;
    out.uint(12).text(said.details);
    if let Some(body) = said.body {
        let got = body.longest_text();
        if got > body::TEXT_LIMIT {
            return Err(LeafError::Text { field: "body", got, limit: body::TEXT_LIMIT });
        }
        out.uint(13);
        body.encode(out);
    }
    if let Some(request) = said.request {
        out.uint(14).bytes(&request.to_bytes());
    }
    Ok(())
}

/// What a leaf says, read where it lies: nothing is copied but a body that has texts of its own.
pub(super) struct LeafView<'a> {
    pub(super) place: Place,
    pub(super) said: Said<'a, EventBody>,
}

impl<'a> LeafView<'a> {
    /// Reads a leaf.
    ///
    /// # Errors
    /// Whatever is not byte for byte what [`AuditEvent::to_leaf`] gives back for the event.
    #[inline(always)]
    pub(super) fn read(leaf: &'a [u8]) -> Result<Self, LeafError> {
        if leaf.len() > LEAF_LIMIT {
            return Err(LeafError::TooLong(leaf.len()));
        }
        let mut reader = Reader::new(leaf);
        let mut map = reader.int_map(FIELDS)?;
        let version = map.required(0)?.uint()?;
        if version != LEAF_VERSION {
            return Err(LeafError::Version(version));
        }
        let sequence = Sequence(map.required(1)?.uint()?);
        let epoch = Epoch(map.required(2)?.uint()?);
        let time = Timestamp(map.required(3)?.uint()?);
        let code = map.required(4)?.uint()?;
        let event_type = AuditEventType::from_code(code).ok_or(LeafError::EventType(code))?;
        let severity = AuditSeverity::from_code(map.required(5)?.uint()?).ok_or(CborError::Range)?;
        let previous = LeafHash::new(map.required(6)?.array_of()?);
        let said = Said {
            event_type,
            severity,
            enclave_id: take_name(&mut map, 7)?,
            key_id: take_name(&mut map, 8)?,
            key_version: map.optional(9)?.map(Reader::number).transpose()?.map(KeyVersion),
            principal: take_name(&mut map, 10)?,
            content_id: take_name(&mut map, 11)?,
            details: map.required(12)?.text(DETAILS_LIMIT)?,
            body: map.optional(13)?.map(EventBody::decode).transpose()?,
            request: match map.optional(14)? {
                Some(reader) => Some(RequestTag::from_bytes(reader.array_of()?).ok_or(CborError::Range)?),
                None => None,
            },
        };
        map.end()?;
        reader.end()?;
        Ok(Self { place: Place { sequence, epoch, time, previous }, said })
    }

    /// The event, which outlives its leaf, whose hash is given.
    fn into_event(self, hash: LeafHash) -> AuditEvent {
        let Self { place, said } = self;
        AuditEvent {
            sequence: place.sequence,
            epoch: place.epoch,
            time: place.time,
            event_type: said.event_type,
            severity: said.severity,
            enclave_id: said.enclave_id.map(str::to_owned),
            key_id: said.key_id.map(str::to_owned),
            key_version: said.key_version,
            principal: said.principal.map(str::to_owned),
            content_id: said.content_id.map(str::to_owned),
            details: said.details.to_owned(),
            body: said.body,
            request: said.request,
            previous: place.previous,
            hash,
        }
    }
}

/// Decodes a leaf and computes its hash.
///
/// # Errors
/// Whatever is not byte for byte what [`AuditEvent::to_leaf`] gives back for the decoded event.
pub fn decode(leaf: &[u8]) -> Result<AuditEvent, LeafError> {
    Ok(LeafView::read(leaf)?.into_event(leaf_hash(leaf)))
}

impl AuditEvent {
    /// The leaf of this event. Its hash is [`AuditEvent::hash`] where nothing was changed.
    ///
    /// # Errors
    /// Only where a text was made longer than its limit.
    pub fn to_leaf(&self) -> Result<Vec<u8>, LeafError> {
        let place = Place { sequence: self.sequence, epoch: self.epoch, time: self.time, previous: self.previous };
        let mut leaf = Vec::with_capacity(256);
        encode(&place, &self.into(), &mut leaf)?;
        Ok(leaf)
    }

    #[inline]
    pub(super) fn placed(place: Place, draft: EventDraft, hash: LeafHash) -> Self {
        Self {
            sequence: place.sequence,
            epoch: place.epoch,
            time: place.time,
            event_type: draft.event_type,
            severity: draft.severity,
            enclave_id: draft.enclave_id,
            key_id: draft.key_id,
            key_version: draft.key_version,
            principal: draft.principal,
            content_id: draft.content_id,
            details: draft.details,
            body: draft.body,
            request: draft.request,
            previous: place.previous,
            hash,
        }
    }
}

const fn within(field: &'static str, text: &str, limit: usize) -> Result<(), LeafError> {
    if text.len() > limit { Err(LeafError::Text { field, got: text.len(), limit }) } else { Ok(()) }
}

fn put_name(out: &mut Writer, key: u64, field: &'static str, name: Option<&str>) -> Result<(), LeafError> {
    if let Some(name) = name {
        within(field, name, NAME_LIMIT)?;
        out.uint(key).text(name);
    }
    Ok(())
}

#[inline(always)]
fn take_name<'a>(map: &mut MapReader<'_, 'a>, key: u64) -> Result<Option<&'a str>, CborError> {
    match map.optional(key)? {
        Some(reader) => reader.text(NAME_LIMIT).map(Some),
        None => Ok(None),
    }
}
