use std::{fmt, str::FromStr};

use super::SegmentError;
use crate::ids::{Epoch, LeafHash, LogId, Sequence};

const MAGIC: [u8; 8] = *b"TCSEG\r\n\x1a";
const VERSION: u32 = 1;

/// The first 96 bytes of a segment file, integers big-endian:
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | magic `TCSEG\r\n\x1a` |
/// | 8 | 4 | version, 1 |
/// | 12 | 4 | length of this header, 96 |
/// | 16 | 16 | log id |
/// | 32 | 8 | epoch |
/// | 40 | 8 | sequence of the first event |
/// | 48 | 32 | leaf hash of the event before it |
/// | 80 | 12 | zero |
/// | 92 | 4 | CRC32C of the 92 bytes before |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log.
    pub log_id: LogId,
    /// The epoch of every event inside.
    pub epoch: Epoch,
    /// Position of the first event.
    pub first: Sequence,
    /// Leaf hash of the event before; zero for the first of the log.
    pub previous: LeafHash,
}

impl SegmentHeader {
    /// Length in bytes.
    pub const LEN: usize = 96;

    /// The 96 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = [
            &MAGIC[..],
            &VERSION.to_be_bytes(),
            &96_u32.to_be_bytes(),
            self.log_id.as_bytes(),
            &self.epoch.0.to_be_bytes(),
            &self.first.0.to_be_bytes(),
            self.previous.as_bytes(),
            &[0; 12],
        ]
        .concat();
        out.extend(crc32c::crc32c(&out).to_be_bytes());
        out
    }

    /// Reads exactly 96 bytes.
    ///
    /// # Errors
    /// [`SegmentError`], the first that applies.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self, SegmentError> {
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(SegmentError::Magic)?;
        if *magic != MAGIC {
            return Err(SegmentError::Magic);
        }
        let mut fields = Fields(rest);
        let version = u32::from_be_bytes(fields.take()?);
        let length = u32::from_be_bytes(fields.take()?);
        let log_id = LogId::new(fields.take()?);
        let epoch = Epoch(u64::from_be_bytes(fields.take()?));
        let first = Sequence(u64::from_be_bytes(fields.take()?));
        let previous = LeafHash::new(fields.take()?);
        let zero: [u8; 12] = fields.take()?;
        let sum = u32::from_be_bytes(fields.take()?);
        if sum != crc32c::crc32c(bytes.get(..Self::LEN - 4).unwrap_or_default()) {
            return Err(SegmentError::Checksum("header"));
        }
        if version != VERSION {
            return Err(SegmentError::Version(version));
        }
        if length != 96 || zero != [0; 12] {
            return Err(SegmentError::Malformed("header"));
        }
        Ok(Self { log_id, epoch, first, previous })
    }

    /// The file that this segment belongs into.
    pub const fn name(&self) -> SegmentName {
        SegmentName { first: self.first, epoch: self.epoch }
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SegmentError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(SegmentError::Malformed("header"))?;
        self.0 = rest;
        Ok(*field)
    }
}

/// Name of a segment file: `<first sequence, 20 digits>-<epoch, 10 digits>.seg`, so that names sort as the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// Position of the first event.
    pub first: Sequence,
    /// Epoch of every event inside.
    pub epoch: Epoch,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:010}.seg", self.first.0, self.epoch.0)
    }
}

impl FromStr for SegmentName {
    type Err = SegmentError;

    fn from_str(text: &str) -> Result<Self, SegmentError> {
        let parse = || {
            let (first, epoch) = text.strip_suffix(".seg")?.split_once('-')?;
            Some(Self { first: Sequence(first.parse().ok()?), epoch: Epoch(epoch.parse().ok()?) })
        };
        parse().filter(|name: &Self| name.to_string() == text).ok_or_else(|| SegmentError::Name(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        log_id: LogId::new([1; 16]),
        epoch: Epoch(2),
        first: Sequence(3),
        previous: LeafHash::new([4; 32]),
    };

    #[test]
    fn a_header_survives_its_bytes_and_every_changed_byte_is_refused() {
        let bytes: [u8; 96] = HEADER.to_bytes().try_into().unwrap();
        assert_eq!(SegmentHeader::from_bytes(&bytes), Ok(HEADER));
        for at in 0..96 {
            let mut changed = bytes;
            changed[at] ^= 0x40;
            assert!(SegmentHeader::from_bytes(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn names_sort_as_the_log_does_and_have_one_form() {
        assert_eq!(HEADER.name().to_string(), "00000000000000000003-0000000002.seg");
        assert_eq!("00000000000000000003-0000000002.seg".parse(), Ok(HEADER.name()));
        for bad in ["3-2.seg", "00000000000000000003-0000000002", "+0000000000000000003-0000000002.seg", "x"] {
            assert!(bad.parse::<SegmentName>().is_err());
        }
    }
}
