//! An image taken apart. Written against the format's definition, not with AWS's reader, so that what builds images and what
//! verifies them share no code.
//!
//! Header, big-endian: magic `.eif`, version (2), flags (2), default memory (8), default CPUs (8), reserved (2), number of
//! sections (2), 32 offsets (8 each), 32 sizes (8 each), unused (4), CRC-32 of everything but itself (4). A section: type
//! (2), flags (2), size (8), content.

use thiserror::Error;

const MAGIC: &[u8] = b".eif";
const VERSION: u16 = 4;
const HEADER: usize = 548;
const SECTIONS: usize = 32;
const SECTION_HEADER: usize = 12;

/// The parts of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Architecture and reserved bits.
    pub(crate) flags: u16,
    /// The kernel.
    pub(crate) kernel: Vec<u8>,
    /// Its command line.
    pub(crate) cmdline: Vec<u8>,
    /// The ramdisks in their order: boot, application.
    pub(crate) ramdisks: Vec<Vec<u8>>,
    /// What the build says of itself, JSON. Not measured.
    pub(crate) metadata: Vec<u8>,
    /// The signature section, where there is one.
    pub(crate) signature: Option<Vec<u8>>,
}

/// Why bytes are no image.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum ImageError {
    /// It does not begin as an image.
    #[error("not an enclave image")]
    Magic,
    /// Another version of the format.
    #[error("version {0} of the format, only {VERSION} is read")]
    Version(u16),
    /// It breaks off, or has more than its sections.
    #[error("broken at byte {0}")]
    Broken(usize),
    /// The sum over everything does not fit.
    #[error("the checksum does not fit: damaged")]
    Checksum,
    /// A section that is missing, twice there or of no known type.
    #[error("{0}")]
    Section(&'static str),
}

impl Image {
    /// Takes an image apart.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let header = bytes.get(..HEADER).ok_or(ImageError::Broken(bytes.len()))?;
        if !header.starts_with(MAGIC) {
            return Err(ImageError::Magic);
        }
        let version = number(header, 4, 2)? as u16;
        if version != VERSION {
            return Err(ImageError::Version(version));
        }
        let flags = number(header, 6, 2)? as u16;
        let count = number(header, 26, 2)? as usize;
        if count > SECTIONS {
            return Err(ImageError::Broken(26));
        }
        let checksum = number(header, HEADER - 4, 4)? as u32;
        let rest = bytes.get(HEADER..).unwrap_or_default();
        if crc32(header.get(..HEADER - 4).unwrap_or_default().iter().chain(rest)) != checksum {
            return Err(ImageError::Checksum);
        }
        let (mut kernel, mut cmdline, mut metadata, mut signature, mut ramdisks) = (None, None, None, None, Vec::new());
        let mut at = HEADER;
        for index in 0..count {
            let offset = number(header, 28 + 8 * index, 8)? as usize;
            let size = number(header, 28 + 8 * SECTIONS + 8 * index, 8)? as usize;
            let section = bytes.get(at..).and_then(|rest| rest.get(..SECTION_HEADER)).ok_or(ImageError::Broken(at))?;
            let kind = number(section, 0, 2)?;
            if offset != at || number(section, 4, 8)? as usize != size {
                return Err(ImageError::Broken(at));
            }
            at += SECTION_HEADER;
            let content = bytes.get(at..).and_then(|rest| rest.get(..size)).ok_or(ImageError::Broken(at))?.to_vec();
            at += size;
            let slot = match kind {
                1 => &mut kernel,
                2 => &mut cmdline,
                3 => {
                    ramdisks.push(content);
                    continue;
                }
                4 => &mut signature,
                5 => &mut metadata,
                _ => return Err(ImageError::Section("a section of no known type")),
            };
            if slot.replace(content).is_some() {
                return Err(ImageError::Section("a section that may be there once is there twice"));
            }
        }
        if at != bytes.len() {
            return Err(ImageError::Broken(at));
        }
        if ramdisks.len() < 2 {
            return Err(ImageError::Section("fewer than two ramdisks: PCR2 would measure nothing"));
        }
        Ok(Self {
            flags,
            kernel: kernel.ok_or(ImageError::Section("no kernel"))?,
            cmdline: cmdline.ok_or(ImageError::Section("no command line"))?,
            metadata: metadata.ok_or(ImageError::Section("no metadata"))?,
            ramdisks,
            signature,
        })
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> Result<u64, ImageError> {
    let digits = bytes.get(at..at + length).ok_or(ImageError::Broken(at))?;
    Ok(digits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// CRC-32 as of ISO-HDLC: reflected, polynomial 0x04C11DB7.
fn crc32<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let mut table = [0_u32; 256];
    for (index, slot) in (0_u32..).zip(&mut table) {
        *slot = (0..8).fold(index, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 });
    }
    let step = |crc: u32, byte: &u8| {
        let index = (crc as u8 ^ byte) as usize;
        crc >> 8 ^ table.get(index).copied().unwrap_or_default()
    };
    !bytes.fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_that_everybody_uses() {
        assert_eq!(crc32(b"123456789".iter()), 0xcbf4_3926);
    }

    #[test]
    fn what_is_no_image_is_said_to_be_none() {
        assert_eq!(Image::parse(b"short"), Err(ImageError::Broken(5)));
        assert_eq!(Image::parse(&[0; HEADER]), Err(ImageError::Magic));
        let mut other = [0; HEADER];
        other[..4].copy_from_slice(MAGIC);
        other[5] = 3;
        assert_eq!(Image::parse(&other), Err(ImageError::Version(3)));
        other[5] = 4;
        assert_eq!(Image::parse(&other), Err(ImageError::Checksum));
    }
}
