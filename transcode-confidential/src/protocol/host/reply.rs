use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    Durable, READ_LIMIT, SEGMENTS_LIMIT, exactly,
    request::{put_name, take_name},
};
use crate::{
    audit::{
        segment::SegmentName,
        tree::{Node, PROOF_LIMIT},
    },
    cbor::{CborError, Reader, Writer},
    ids::LogId,
};

const TEXT_LIMIT: usize = 256;
const CREDENTIAL_LIMIT: usize = 16 * 1024;
const POLICY_LIMIT: usize = 64 * 1024;

/// What the parent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// To `Hello`: body kind 0.
    Welcome(Welcome),
    /// To `Segments`: body kind 1.
    Segments(Vec<SegmentInfo>),
    /// To `Read`: body kind 2.
    Bytes(Vec<u8>),
    /// To `Quarantine`, `Ping`, `Stage` and `Prune`: body kind 3.
    Done,
    /// To `Append`: body kind 4.
    Appended(Durable),
    /// To `Credentials`: body kind 5.
    Credentials(Credentials),
    /// To `Policy` and `Restoration`: body kind 6. `None` where there is nothing, or nothing newer.
    Policy(Option<Vec<u8>>),
    /// To `Inclusion` and `Consistency`: body kind 7.
    Proof(Vec<Node>),
    /// To `Snapshot`: body kind 8. `None` where no segment begins with a snapshot.
    Start(Option<SegmentName>),
    /// To `Ping`, in place of `Done`: body kind 15. Whoever runs the parent asks the enclave to seal its log and end.
    Stop,
    /// To anything: a status other than 0.
    Failed(HostError),
}

/// The parent's greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Protocol version of the parent.
    pub version: u64,
    /// Its name and version, for logs.
    pub parent: String,
    /// The log it holds and how far that has come. `None` for an empty store.
    pub durable: Option<(LogId, Durable)>,
}

/// A segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its name.
    pub name: SegmentName,
    /// Its length in bytes.
    pub length: u64,
}

/// AWS credentials. Their end is told as a remaining lifetime, because the parent's clock is not the enclave's.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: Zeroizing<String>,
    /// Session token; empty for long-lived keys.
    pub session_token: Zeroizing<String>,
    /// Seconds until they expire, from when the reply was made.
    pub remaining_secs: u64,
}

impl Credentials {
    /// Takes the parts over.
    pub fn new(
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
        session_token: impl Into<String>,
        remaining_secs: u64,
    ) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: Zeroizing::new(secret_access_key.into()),
            session_token: Zeroizing::new(session_token.into()),
            remaining_secs,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials(secret, {} s left)", self.remaining_secs)
    }
}

/// Why the parent cannot do what it was asked. The number is the status in the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum HostError {
    /// Another session is alive.
    #[error("another enclave session is alive")]
    Fenced = 1,
    /// The request is malformed or not allowed now.
    #[error("the parent refused the request")]
    Refused = 2,
    /// The batch does not follow on what is stored.
    #[error("the batch does not follow on what is stored")]
    OutOfOrder = 3,
    /// The disk is full.
    #[error("the parent's disk is full")]
    StorageFull = 4,
    /// The disk failed; the store needs to be opened and verified anew.
    #[error("the parent's disk failed")]
    StorageFailed = 5,
    /// There are no credentials.
    #[error("the parent has no AWS credentials")]
    NoCredentials = 6,
    /// There is no such segment or event.
    #[error("the parent has no such segment or event")]
    NotFound = 7,
    /// Another protocol version is needed.
    #[error("the parent speaks another protocol version")]
    Version = 8,
}

impl HostError {
    const ALL: [Self; 8] = [
        Self::Fenced,
        Self::Refused,
        Self::OutOfOrder,
        Self::StorageFull,
        Self::StorageFailed,
        Self::NoCredentials,
        Self::NotFound,
        Self::Version,
    ];
}

impl Reply {
    /// The payload of a frame.
    pub fn encode(&self, id: u64) -> Vec<u8> {
        let mut out = Writer::new();
        out.array(3).uint(id);
        if let Self::Failed(error) = self {
            out.uint(*error as u64).array(0);
            return out.into_bytes();
        }
        out.uint(0);
        match self {
            Self::Welcome(welcome) => {
                out.array(3 + usize::from(welcome.durable.is_some()) * 2).uint(0);
                out.uint(welcome.version).text(&welcome.parent);
                if let Some((log_id, durable)) = welcome.durable {
                    durable.put(out.bytes(log_id.as_bytes()));
                }
            }
            Self::Segments(segments) => {
                out.array(2).uint(1).array(segments.len());
                for segment in segments {
                    put_name(out.array(2), segment.name);
                    out.uint(segment.length);
                }
            }
            Self::Bytes(bytes) => {
                out.array(2).uint(2).bytes(bytes);
            }
            Self::Done => {
                out.array(1).uint(3);
            }
            Self::Appended(durable) => durable.put(out.array(2).uint(4)),
            Self::Credentials(credentials) => {
                out.array(5).uint(5).text(&credentials.access_key_id).text(&credentials.secret_access_key);
                out.text(&credentials.session_token).uint(credentials.remaining_secs);
            }
            Self::Policy(policy) => {
                out.array(1 + usize::from(policy.is_some())).uint(6);
                if let Some(policy) = policy {
                    out.bytes(policy);
                }
            }
            Self::Proof(nodes) => {
                out.array(2).uint(7).array(nodes.len());
                for node in nodes {
                    out.bytes(node);
                }
            }
            Self::Start(name) => {
                out.array(1 + usize::from(name.is_some())).uint(8);
                if let Some(name) = name {
                    put_name(&mut out, *name);
                }
            }
            Self::Stop => {
                out.array(1).uint(15);
            }
            Self::Failed(_) => {}
        }
        out.into_bytes()
    }

    /// Reads the payload of a frame: the request's id and the reply.
    ///
    /// # Errors
    /// [`CborError`]; the connection is of no further use then.
    pub fn decode(payload: &[u8]) -> Result<(u64, Self), CborError> {
        let mut reader = Reader::new(payload);
        exactly(reader.array(3)?, 3)?;
        let (id, status) = (reader.uint()?, reader.uint()?);
        let items = reader.array(5)?;
        let reply = if status == 0 {
            Self::take(&mut reader, items)?
        } else {
            exactly(items, 0)?;
            let error = HostError::ALL.into_iter().find(|error| *error as u64 == status);
            Self::Failed(error.ok_or(CborError::Range)?)
        };
        reader.end()?;
        Ok((id, reply))
    }

    fn take(reader: &mut Reader<'_>, items: usize) -> Result<Self, CborError> {
        let kind = reader.uint()?;
        let fields = |count: usize| exactly(items, count + 1);
        Ok(match kind {
            0 => {
                let (version, parent) = (reader.uint()?, reader.text(TEXT_LIMIT)?.to_owned());
                let durable = if items == 3 {
                    None
                } else {
                    fields(4)?;
                    Some((LogId::new(reader.array_of()?), Durable::take(reader)?))
                };
                Self::Welcome(Welcome { version, parent, durable })
            }
            1 => {
                fields(1)?;
                let segments = (0..reader.array(SEGMENTS_LIMIT)?).map(|_| {
                    exactly(reader.array(2)?, 2)?;
                    Ok(SegmentInfo { name: take_name(reader)?, length: reader.uint()? })
                });
                Self::Segments(segments.collect::<Result<_, CborError>>()?)
            }
            2 => fields(1).and_then(|()| Ok(Self::Bytes(reader.bytes(READ_LIMIT)?.to_vec())))?,
            3 => fields(0).map(|()| Self::Done)?,
            4 => fields(1).and_then(|()| Ok(Self::Appended(Durable::take(reader)?)))?,
            5 => {
                fields(4)?;
                let mut text = || reader.text(CREDENTIAL_LIMIT).map(str::to_owned);
                let (id, secret, token) = (text()?, text()?, text()?);
                Self::Credentials(Credentials::new(id, secret, token, reader.uint()?))
            }
            6 if items == 1 => Self::Policy(None),
            6 => fields(1).and_then(|()| Ok(Self::Policy(Some(reader.bytes(POLICY_LIMIT)?.to_vec()))))?,
            7 => {
                fields(1)?;
                let nodes = (0..reader.array(PROOF_LIMIT)?).map(|_| reader.array_of());
                Self::Proof(nodes.collect::<Result<_, _>>()?)
            }
            8 if items == 1 => Self::Start(None),
            8 => fields(1).and_then(|()| Ok(Self::Start(Some(take_name(reader)?))))?,
            15 => fields(0).map(|()| Self::Stop)?,
            _ => return Err(CborError::Range),
        })
    }
}
