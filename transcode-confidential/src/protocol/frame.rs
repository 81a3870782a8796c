//! Frames: `payload length (4) || CRC32C of the payload (4) || CRC32C of these eight bytes (4) || payload`, integers big-endian.
//! End of stream is never a message's end.
//!
//! The check sums find what a transport garbles, before it is stored and acknowledged as something that was never sent; they
//! keep nobody from anything. The head has one of its own, so that a garbled length is found at once.

use thiserror::Error;

/// Length of a frame's head, in bytes.
pub const FRAME_HEAD: usize = 12;
/// Greatest length of a frame's payload, in bytes.
pub const FRAME_LIMIT: usize = 1024 * 1024;
/// Greatest number of bytes given to one write on vsock: larger writes were seen to stall.
pub const WRITE_LIMIT: usize = 32 * 1024;

/// What is no frame. Nothing that follows on the same connection can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadFrame {
    /// A frame that is longer than [`FRAME_LIMIT`].
    #[error("a frame of {0} bytes, more than {FRAME_LIMIT}")]
    TooLong(usize),
    /// A check sum does not fit.
    #[error("a frame was garbled on its way")]
    Garbled,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    length: u32,
    sum: u32,
}

impl FrameHead {
    /// For a payload of at most [`FRAME_LIMIT`] bytes.
    ///
    /// # Errors
    /// [`BadFrame::TooLong`].
    pub fn of(payload: &[u8]) -> Result<Self, BadFrame> {
        match u32::try_from(payload.len()) {
            Ok(length) if payload.len() <= FRAME_LIMIT => Ok(Self { length, sum: crc32c::crc32c(payload) }),
            _ => Err(BadFrame::TooLong(payload.len())),
        }
    }

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; FRAME_HEAD] {
        let ([l0, l1, l2, l3], [s0, s1, s2, s3]) = (self.length.to_be_bytes(), self.sum.to_be_bytes());
        let [h0, h1, h2, h3] = crc32c::crc32c(&[l0, l1, l2, l3, s0, s1, s2, s3]).to_be_bytes();
        [l0, l1, l2, l3, s0, s1, s2, s3, h0, h1, h2, h3]
    }

    /// As it was received.
    ///
    /// # Errors
    /// [`BadFrame`].
    pub fn from_bytes(bytes: [u8; FRAME_HEAD]) -> Result<Self, BadFrame> {
        let [l0, l1, l2, l3, s0, s1, s2, s3, ..] = bytes;
        let head = Self { length: u32::from_be_bytes([l0, l1, l2, l3]), sum: u32::from_be_bytes([s0, s1, s2, s3]) };
        match head.to_bytes() == bytes {
            false => Err(BadFrame::Garbled),
            true if head.payload_length() > FRAME_LIMIT => Err(BadFrame::TooLong(head.payload_length())),
            true => Ok(head),
        }
    }

    /// Length of the payload that follows, in bytes.
    pub const fn payload_length(self) -> usize {
        self.length as usize
    }

    /// Sees that the payload is the one that was sent.
    ///
    /// # Errors
    /// [`BadFrame::Garbled`].
    pub fn check(self, payload: &[u8]) -> Result<(), BadFrame> {
        if Self::of(payload) == Ok(self) { Ok(()) } else { Err(BadFrame::Garbled) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_of_a_frame_changes_unnoticed() {
        let payload = b"what was sent";
        let frame = [&FrameHead::of(payload).unwrap().to_bytes()[..], payload].concat();
        let read = |frame: &[u8]| {
            let (head, payload) = frame.split_first_chunk().unwrap();
            FrameHead::from_bytes(*head)?.check(payload)
        };
        assert_eq!(read(&frame), Ok(()));
        for bit in 0..frame.len() * 8 {
            let mut garbled = frame.clone();
            garbled[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&garbled), Err(BadFrame::Garbled), "bit {bit}");
        }
    }

    #[test]
    fn a_head_that_announces_too_much_is_refused_by_itself() {
        assert_eq!(FrameHead::of(&vec![0; FRAME_LIMIT + 1]), Err(BadFrame::TooLong(FRAME_LIMIT + 1)));
        let head = FrameHead { length: FRAME_LIMIT as u32 + 1, sum: 0 };
        assert_eq!(FrameHead::from_bytes(head.to_bytes()), Err(BadFrame::TooLong(FRAME_LIMIT + 1)));
    }
}
