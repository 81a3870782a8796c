//! Closed segments of the log, compressed.
//!
//! A packed segment is one gzip member (RFC 1952) with the ten header bytes `1f 8b 08 00 00000000 00 ff` and nothing after
//! it, so that the same segment packs into the same bytes and `gunzip` reads it. Its last four bytes are the length of the
//! segment, little-endian: whoever unpacks never takes more than that. What is inside proves itself, as every segment does;
//! the sums of gzip only tell where a file is rotten.

use std::io::{self, BufReader, Read, Write};

use flate2::{Compression, Crc, GzBuilder, bufread::DeflateDecoder};

/// What follows the name of a segment whose file is packed.
pub const SUFFIX: &str = ".gz";
/// The longest segment that can be packed, in bytes.
pub const LIMIT: u64 = u32::MAX as u64;

const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Packs a segment.
///
/// # Errors
/// Those of reading and writing; [`io::ErrorKind::FileTooLarge`] beyond [`LIMIT`].
pub fn pack(segment: &mut dyn Read, packed: &mut dyn Write) -> io::Result<()> {
    let mut encoder = GzBuilder::new().write(packed, Compression::new(6));
    if io::copy(&mut segment.take(LIMIT + 1), &mut encoder)? > LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    encoder.finish().map(drop)
}

/// Length of the segment, by the last four bytes of its packed file.
pub const fn length(trailer: [u8; 4]) -> u64 {
    u32::from_le_bytes(trailer) as u64
}

/// Reads a packed segment from its beginning. Holds a few times 32 KiB, whatever the file says.
///
/// What is wrong with the file itself comes as [`io::ErrorKind::InvalidData`], at the latest in place of the last bytes. One
/// change alone is not noticed, and changes nothing: that of the bits that fill up the last byte of the compressed data.
#[derive(Debug)]
pub struct Unpack<R> {
    decoder: DeflateDecoder<BufReader<R>>,
    sum: Crc,
    length: u64,
    left: u64,
}

impl<R: Read> Unpack<R> {
    /// Starts with the first byte of the packed file, whose last four bytes promise a segment of `length` bytes.
    ///
    /// # Errors
    /// As reading.
    pub fn new(mut packed: R, length: u64) -> io::Result<Self> {
        let mut head = [0; HEADER.len()];
        packed.read_exact(&mut head).map_err(judge)?;
        if head != HEADER || length == 0 {
            return Err(damaged());
        }
        let decoder = DeflateDecoder::new(BufReader::with_capacity(64 * 1024, packed));
        Ok(Self { decoder, sum: Crc::new(), length, left: length })
    }

    /// Passes over bytes.
    ///
    /// # Errors
    /// As reading; [`io::ErrorKind::InvalidData`] where there are fewer.
    pub fn skip(&mut self, count: u64) -> io::Result<()> {
        if io::copy(&mut self.by_ref().take(count), &mut io::sink())? == count { Ok(()) } else { Err(damaged()) }
    }

    /// The compressed data ends here, what follows are its sum and length, and nothing follows those.
    fn end(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        if self.decoder.read(&mut [0]).map_err(judge)? > 0 {
            return Err(damaged());
        }
        self.decoder.get_mut().take(9).read_to_end(&mut rest)?;
        let length = u32::try_from(self.length).map_err(|_| damaged())?;
        if rest == [self.sum.sum().to_le_bytes(), length.to_le_bytes()].concat() { Ok(()) } else { Err(damaged()) }
    }
}

impl<R: Read> Read for Unpack<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let room = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(room) = bytes.get_mut(..room).filter(|room| !room.is_empty()) else { return Ok(0) };
        let count = self.decoder.read(room).map_err(judge)?;
        if count == 0 {
            return Err(damaged());
        }
        self.sum.update(room.get(..count).unwrap_or_default());
        self.left = self.left.saturating_sub(count as u64);
        if self.left == 0 {
            self.end()?;
        }
        Ok(count)
    }
}

/// Whether a failure says that a packed file is not what was written.
pub fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the packed file is damaged")
}

/// The kinds by which the decoder says that its input is wrong; everything else comes from the file's reader.
fn judge(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => damaged(),
        _ => error,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail loudly")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(segment: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack(&mut &*segment, &mut bytes).unwrap();
        bytes
    }

    fn unpacked(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut segment = Vec::new();
        let length = length(*packed.last_chunk().ok_or_else(damaged)?);
        Unpack::new(packed, length)?.read_to_end(&mut segment)?;
        Ok(segment)
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked_and_packs_into_the_same_bytes(segment in prop::collection::vec(0..40_u8, 1..9000)) {
            let bytes = packed(&segment);
            prop_assert_eq!(&bytes[..10], HEADER);
            prop_assert_eq!(unpacked(&bytes).unwrap(), segment.clone());
            prop_assert_eq!(packed(&segment), bytes);
        }
    }

    #[test]
    fn every_flipped_bit_is_found_or_changes_nothing() {
        let segment: Vec<u8> = (0..3000_u32).map(|number| (number * number % 251) as u8).collect();
        let bytes = packed(&segment);
        let mut unnoticed = 0;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                match unpacked(&changed) {
                    Err(error) => assert!(is_damage(&error), "{error}"),
                    Ok(found) => {
                        assert_eq!(found, segment);
                        unnoticed += 1;
                    }
                }
            }
        }
        assert!(unnoticed < 8, "{unnoticed}: more than the bits that fill up a byte");
    }

    #[test]
    fn a_file_that_is_cut_off_or_goes_on_is_damaged() {
        let bytes = packed(&[7; 5000]);
        for end in 0..bytes.len() {
            assert!(is_damage(&unpacked(&bytes[..end]).unwrap_err()), "{end}");
        }
        let twice = [&bytes[..], &bytes].concat();
        assert!(is_damage(&unpacked(&twice).unwrap_err()));
        assert!(is_damage(&unpacked(&[&bytes[..], &bytes[bytes.len() - 8..]].concat()).unwrap_err()));
    }

    #[test]
    fn a_bomb_gives_no_more_than_it_promises() {
        let mut bytes = packed(&vec![0; 50 << 20]);
        let place = bytes.len() - 4;
        bytes[place..].copy_from_slice(&1000_u32.to_le_bytes());
        let mut given = Vec::new();
        let error = Unpack::new(&bytes[..], 1000).unwrap().read_to_end(&mut given).unwrap_err();
        assert!(is_damage(&error) && given.len() < 1000, "{}", given.len());
    }
}
