use super::{APPEND_LIMIT, Durable, READ_LIMIT, exactly};
use crate::{
    audit::segment::SegmentName,
    cbor::{CborError, Reader, Writer},
    ids::{Epoch, LeafHash, LogId, Sequence},
    protocol::metrics::REPORT_LIMIT,
};

/// What the enclave asks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// Kind 0: opens a session. Must come first, once. Answer: [`super::Reply::Welcome`], or `Fenced` while another session
    /// is alive.
    Hello {
        /// Protocol version of the enclave.
        version: u64,
        /// Drawn at random when the enclave boots; the same when it reconnects.
        session: [u8; 16],
    },
    /// Kind 1: which segments are there? Answer: [`super::Reply::Segments`] in the order of their names.
    Segments {
        /// Only those after this one.
        after: Option<SegmentName>,
    },
    /// Kind 2: bytes of a segment file. Answer: [`super::Reply::Bytes`], shorter than asked only at the end of the file.
    Read {
        /// The segment.
        name: SegmentName,
        /// Where to start.
        offset: u64,
        /// How many bytes, at most [`READ_LIMIT`].
        length: usize,
    },
    /// Kind 3: set aside what a segment holds from `offset` on: it is not sealed. Answer: [`super::Reply::Done`].
    Quarantine {
        /// The last segment.
        name: SegmentName,
        /// Where its sealed part ends.
        offset: u64,
    },
    /// Kind 4: persist a sealed batch. Answer: [`super::Reply::Appended`], after the data is on disk.
    Append(Append),
    /// Kind 5: AWS credentials. Answer: [`super::Reply::Credentials`].
    Credentials,
    /// Kind 6: a newer signed policy, if there is one. Answer: [`super::Reply::Policy`].
    Policy {
        /// The version that the enclave has; 0 for none.
        after: u64,
    },
    /// Kind 7: an inclusion proof. Answer: [`super::Reply::Proof`].
    Inclusion {
        /// Leaf index.
        index: u64,
        /// Tree size.
        size: u64,
    },
    /// Kind 8: a consistency proof. Answer: [`super::Reply::Proof`].
    Consistency {
        /// The smaller tree size.
        old: u64,
        /// The larger one.
        new: u64,
    },
    /// Kind 9: are you alive? Answer: [`super::Reply::Done`] or [`super::Reply::Stop`].
    Ping,
    /// Kind 10: records as in [`Append::records`] that come before those of the next [`Request::Append`] of this connection,
    /// which they would make too long. Answer: [`super::Reply::Done`]; nothing is stored before that append, and all of it with
    /// it. Several add up, to at most [`super::STAGE_LIMIT`] bytes.
    Stage(Vec<u8>),
    /// Kind 11: which segment begins with the newest snapshot? Answer: [`super::Reply::Start`].
    Snapshot,
    /// Kind 12: drop the closed segments that hold only events before this one. They are not needed: their hashes are kept
    /// for proofs. Answer: [`super::Reply::Done`], when they are gone.
    Prune {
        /// A segment begins with this event.
        below: Sequence,
    },
    /// Kind 13: a restore document, if there is one. Answer: [`super::Reply::Policy`].
    Restoration,
    /// Kind 20: figures for whoever watches, a [`crate::protocol::metrics::Report`] of at most
    /// [`crate::protocol::metrics::REPORT_LIMIT`] bytes. Answer: [`super::Reply::Done`], or `Refused` where the parent
    /// cannot read them, which means nothing to the session.
    Metrics(Vec<u8>),
}

/// A sealed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The log.
    pub log_id: LogId,
    /// Epoch of the events; another one than before starts a new segment.
    pub epoch: Epoch,
    /// Position of the first event.
    pub first: Sequence,
    /// Leaf hash of the event before.
    pub previous: LeafHash,
    /// How far the log has come when this is on disk.
    pub after: Durable,
    /// The records, in order: attachments before their entries, the seal at the end. Whole records one behind the other, the
    /// very bytes that will lie on disk; what they are is for the store to see.
    pub records: Vec<u8>,
}

impl Request {
    /// The payload of a frame.
    pub fn encode(&self, id: u64) -> Vec<u8> {
        let long = match self {
            Self::Append(Append { records, .. }) | Self::Stage(records) => records.len(),
            _ => 0,
        };
        let mut out = Writer::with_capacity(long + 256);
        out.array(3).uint(id);
        match self {
            Self::Hello { version, session } => {
                out.uint(0).array(2).uint(*version).bytes(session);
            }
            Self::Segments { after } => {
                out.uint(1).array(usize::from(after.is_some()));
                if let Some(name) = after {
                    put_name(&mut out, *name);
                }
            }
            Self::Read { name, offset, length } => {
                put_name(out.uint(2).array(3), *name);
                out.uint(*offset).uint(*length as u64);
            }
            Self::Quarantine { name, offset } => {
                put_name(out.uint(3).array(2), *name);
                out.uint(*offset);
            }
            Self::Append(append) => append.put(out.uint(4)),
            Self::Credentials => {
                out.uint(5).array(0);
            }
            Self::Policy { after } => {
                out.uint(6).array(1).uint(*after);
            }
            Self::Inclusion { index, size } => {
                out.uint(7).array(2).uint(*index).uint(*size);
            }
            Self::Consistency { old, new } => {
                out.uint(8).array(2).uint(*old).uint(*new);
            }
            Self::Ping => {
                out.uint(9).array(0);
            }
            Self::Stage(records) => {
                out.uint(10).array(1).bytes(records);
            }
            Self::Snapshot => {
                out.uint(11).array(0);
            }
            Self::Prune { below } => {
                out.uint(12).array(1).uint(below.0);
            }
            Self::Restoration => {
                out.uint(13).array(0);
            }
            Self::Metrics(report) => {
                out.uint(20).array(1).bytes(report);
            }
        }
        out.into_bytes()
    }

    /// Reads the payload of a frame: the request's id and the request.
    ///
    /// # Errors
    /// [`CborError`]; the connection is of no further use then.
    pub fn decode(payload: &[u8]) -> Result<(u64, Self), CborError> {
        let mut reader = Reader::new(payload);
        exactly(reader.array(3)?, 3)?;
        let (id, kind) = (reader.uint()?, reader.uint()?);
        let items = reader.array(6)?;
        let fields = |count| exactly(items, count);
        let request = match kind {
            0 => {
                fields(2)?;
                Self::Hello { version: reader.uint()?, session: reader.array_of()? }
            }
            1 if items == 0 => Self::Segments { after: None },
            1 => {
                fields(1)?;
                Self::Segments { after: Some(take_name(&mut reader)?) }
            }
            2 => {
                fields(3)?;
                let (name, offset, length) = (take_name(&mut reader)?, reader.uint()?, reader.number()?);
                if length > READ_LIMIT {
                    return Err(CborError::TooLong);
                }
                Self::Read { name, offset, length }
            }
            3 => {
                fields(2)?;
                Self::Quarantine { name: take_name(&mut reader)?, offset: reader.uint()? }
            }
            4 => {
                fields(6)?;
                Self::Append(Append::take(&mut reader)?)
            }
            5 => fields(0).map(|()| Self::Credentials)?,
            6 => {
                fields(1)?;
                Self::Policy { after: reader.uint()? }
            }
            7 => {
                fields(2)?;
                Self::Inclusion { index: reader.uint()?, size: reader.uint()? }
            }
            8 => {
                fields(2)?;
                Self::Consistency { old: reader.uint()?, new: reader.uint()? }
            }
            9 => fields(0).map(|()| Self::Ping)?,
            10 => {
                fields(1)?;
                Self::Stage(reader.bytes(APPEND_LIMIT)?.to_vec())
            }
            11 => fields(0).map(|()| Self::Snapshot)?,
            12 => {
                fields(1)?;
                Self::Prune { below: Sequence(reader.uint()?) }
            }
            13 => fields(0).map(|()| Self::Restoration)?,
            20 => fields(1).and_then(|()| Ok(Self::Metrics(reader.bytes(REPORT_LIMIT)?.to_vec())))?,
            _ => return Err(CborError::Range),
        };
        reader.end()?;
        Ok((id, request))
    }
}

impl Append {
    fn put(&self, out: &mut Writer) {
        out.array(6)
            .bytes(self.log_id.as_bytes())
            .uint(self.epoch.0)
            .uint(self.first.0)
            .bytes(self.previous.as_bytes());
        self.after.put(out);
        out.bytes(&self.records);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        let log_id = LogId::new(reader.array_of()?);
        let epoch = Epoch(reader.uint()?);
        let first = Sequence(reader.uint()?);
        let previous = LeafHash::new(reader.array_of()?);
        let after = Durable::take(reader)?;
        let records = reader.bytes(APPEND_LIMIT)?.to_vec();
        Ok(Self { log_id, epoch, first, previous, after, records })
    }
}

pub(super) fn put_name(out: &mut Writer, name: SegmentName) {
    out.array(2).uint(name.first.0).uint(name.epoch.0);
}

pub(super) fn take_name(reader: &mut Reader<'_>) -> Result<SegmentName, CborError> {
    exactly(reader.array(2)?, 2)?;
    Ok(SegmentName { first: Sequence(reader.uint()?), epoch: Epoch(reader.uint()?) })
}
