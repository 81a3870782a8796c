use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::message::{
    FrameLength, IssuedDataKey, MessageError,
    frame::{FINAL_HEAD, FrameCipher, FrameKind, HEAD, TAG_LEN},
    header::begin_message,
};

/// Gives the frames of one message their numbers, each of which is used once.
///
/// A message that was not given its last frame is refused by every reader.
#[derive(Debug)]
pub struct FrameWriter {
    cipher: Arc<FrameCipher>,
    frame_length: FrameLength,
    /// Number of the next frame; `None` after the final one or an error.
    next: Option<u32>,
}

impl FrameWriter {
    /// Appends the header to `out`, as [`Encryptor::begin_issued`](crate::message::Encryptor::begin_issued) does.
    ///
    /// # Errors
    /// [`MessageError::Entropy`].
    pub fn begin(
        issued: IssuedDataKey,
        frame_length: FrameLength,
        entropy: &dyn Entropy,
        out: &mut Vec<u8>,
    ) -> Result<Self, MessageError> {
        let cipher = begin_message(&issued, frame_length, entropy, out)?;
        Ok(Self { cipher: Arc::new(cipher), frame_length, next: Some(1) })
    }

    /// Assigns numbers to the frames of a block that is full of plaintext.
    ///
    /// # Errors
    /// [`MessageError::TooManyFrames`]; [`MessageError::GivenUp`] behind the last block or an error.
    pub fn assign(&mut self, block: SealBlock) -> Result<AssignedBlock, MessageError> {
        let first = self.next.take().ok_or(MessageError::GivenUp)?;
        let frames = u32::try_from(block.frames).map_err(|_| MessageError::TooManyFrames)?;
        // The last number is left for the final frame.
        self.next = Some(first.checked_add(frames).ok_or(MessageError::TooManyFrames)?);
        Ok(AssignedBlock { cipher: Arc::clone(&self.cipher), block, first, last: None })
    }

    /// Assigns numbers to the frames of the block that ends the message: `filled` bytes of plaintext are in it.
    ///
    /// # Errors
    /// As [`assign`](Self::assign); [`MessageError::FrameLength`] where the block has no room for a final frame.
    pub fn assign_last(&mut self, block: SealBlock, filled: usize) -> Result<AssignedBlock, MessageError> {
        let first = self.next.take().ok_or(MessageError::GivenUp)?;
        let regular = filled / self.frame_length.as_usize();
        if regular >= block.frames {
            // There must be room for the final frame behind the regular ones.
            return Err(MessageError::FrameLength(self.frame_length.as_u32()));
        }
        let frames = u32::try_from(regular).map_err(|_| MessageError::TooManyFrames)?;
        first.checked_add(frames).ok_or(MessageError::TooManyFrames)?;
        Ok(AssignedBlock { cipher: Arc::clone(&self.cipher), block, first, last: Some(filled) })
    }
}

/// Room for some frames of one length. Plaintext is put where it will be sealed.
pub struct SealBlock {
    buffer: Zeroizing<Vec<u8>>,
    frame_length: FrameLength,
    frames: usize,
}

impl SealBlock {
    /// Room for `frames` frames, at least one.
    pub fn new(frame_length: FrameLength, frames: usize) -> Self {
        let frames = frames.max(1);
        let length = frames.saturating_mul(frame_length.as_usize() + HEAD + TAG_LEN) + FINAL_HEAD - HEAD;
        Self { buffer: Zeroizing::new(vec![0; length]), frame_length, frames }
    }

    /// Length of its frames.
    pub const fn frame_length(&self) -> FrameLength {
        self.frame_length
    }

    /// Bytes of plaintext that fill it.
    pub const fn capacity(&self) -> usize {
        self.frames * self.frame_length.as_usize()
    }

    /// The places of the plaintext, in order, without the first `skip` bytes.
    pub fn room(&mut self, skip: usize) -> impl Iterator<Item = &mut [u8]> {
        let length = self.frame_length.as_usize();
        let (full, part) = (skip / length, skip % length);
        let slots = self.buffer.chunks_exact_mut(length + HEAD + TAG_LEN).take(self.frames).skip(full);
        slots.enumerate().map(move |(index, slot)| {
            let from = if index == 0 { part } else { 0 };
            slot.get_mut(HEAD + from..HEAD + length).unwrap_or_default()
        })
    }
}

impl fmt::Debug for SealBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealBlock").field("frame_length", &self.frame_length).field("frames", &self.frames).finish()
    }
}

/// A block whose frames have their numbers. Sealing consumes it, so no number is used twice.
#[derive(Debug)]
pub struct AssignedBlock {
    cipher: Arc<FrameCipher>,
    block: SealBlock,
    first: u32,
    /// Bytes of plaintext, where the message ends with them.
    last: Option<usize>,
}

impl AssignedBlock {
    /// Seals every frame where it lies. Gives back the block, and how many of its first bytes are frames now.
    ///
    /// # Errors
    /// [`MessageError`], where the cipher fails: not for any plaintext.
    pub fn seal(self) -> Result<(SealedBlock, usize), MessageError> {
        let Self { cipher, mut block, first, last } = self;
        let length = block.frame_length.as_usize();
        let slot = length + HEAD + TAG_LEN;
        let regular = last.map_or(block.frames, |filled| filled / length);
        let mut number = first;
        for frame in block.buffer.chunks_exact_mut(slot).take(regular) {
            cipher.seal_in_place(FrameKind::Regular, number, frame)?;
            number = number.wrapping_add(1);
        }
        let mut end = regular * slot;
        if let Some(filled) = last {
            let rest = filled - regular * length;
            let frame = block.buffer.get_mut(end..end + FINAL_HEAD + rest + TAG_LEN).unwrap_or_default();
            frame.copy_within(HEAD..HEAD + rest, FINAL_HEAD);
            cipher.seal_in_place(FrameKind::Final, number, frame)?;
            end += FINAL_HEAD + rest + TAG_LEN;
        }
        Ok((SealedBlock(block), end))
    }
}

/// A block that holds sealed frames.
#[derive(Debug)]
pub struct SealedBlock(SealBlock);

impl SealedBlock {
    /// Its bytes; those that are frames come first.
    pub fn bytes(&self) -> &[u8] {
        &self.0.buffer
    }

    /// The block, for other plaintext.
    pub fn reuse(self) -> SealBlock {
        self.0
    }
}
