//! Frames: `payload length (4, big-endian) || payload`. End of stream is never a message's end.

use thiserror::Error;

/// Length of a frame's head, in bytes.
pub const FRAME_HEAD: usize = 4;
/// Greatest length of a frame's payload, in bytes.
pub const FRAME_LIMIT: usize = 1024 * 1024;
/// Greatest number of bytes given to one write on vsock: larger writes were seen to stall.
pub const WRITE_LIMIT: usize = 32 * 1024;

/// A frame that is longer than [`FRAME_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a frame of {0} bytes, more than {FRAME_LIMIT}")]
pub struct FrameTooLong(pub usize);

/// The head of a frame with a payload of `length` bytes.
///
/// # Errors
/// [`FrameTooLong`].
pub fn frame_head(length: usize) -> Result<[u8; FRAME_HEAD], FrameTooLong> {
    match u32::try_from(length) {
        Ok(short) if length <= FRAME_LIMIT => Ok(short.to_be_bytes()),
        _ => Err(FrameTooLong(length)),
    }
}

/// Length of the payload that follows this head.
///
/// # Errors
/// [`FrameTooLong`]; nothing that follows can be understood then.
pub const fn payload_length(head: [u8; FRAME_HEAD]) -> Result<usize, FrameTooLong> {
    let length = u32::from_be_bytes(head) as usize;
    if length > FRAME_LIMIT { Err(FrameTooLong(length)) } else { Ok(length) }
}
