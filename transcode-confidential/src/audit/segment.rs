//! Segment files: how the parent keeps the log on disk.
//!
//! A segment is a 96-byte [`SegmentHeader`] and records. Each record has a 16-byte head with two CRC32C sums, one over the
//! head and one over the payload. The sums answer "torn or rotten?" only; whether anything was tampered with is answered by
//! the hashes and signatures inside ([`super::verify`]). Nothing in the framing is trusted.
//!
//! Within a batch the order is: for each event the records that its body names, then the entry; at the end of the batch the
//! seal. A closed segment ends with a seal and a [`Footer`].

mod cut;
mod footer;
mod header;
mod record;

pub use cut::{RecordView, RecordViews, WholeRecords};
pub use footer::Footer;
pub use header::{SegmentHeader, SegmentName};
pub use record::{
    DamageKind, RECORD_HEAD, RECORD_LIMIT, Record, RecordBuffer, RecordError, RecordKind, is_torn, starts_empty,
};

use thiserror::Error;

/// Why some bytes are not a part of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The file does not start as a segment does.
    #[error("not a segment file")]
    Magic,
    /// A segment of a version that this code does not know.
    #[error("segment version {0} is not known")]
    Version(u32),
    /// A check sum does not match.
    #[error("the check sum of the {0} does not match")]
    Checksum(&'static str),
    /// A field that must be zero is not, or a length is not the one it must be.
    #[error("the {0} is malformed")]
    Malformed(&'static str),
    /// The file name is not that of a segment.
    #[error("{0:?} is not the name of a segment file")]
    Name(String),
}
