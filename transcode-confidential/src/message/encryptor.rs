use std::fmt;

use zeroize::Zeroizing;

use super::{
    EncryptionContext, FrameLength, IssuedDataKey, MessageError, WrappingKey,
    frame::{FrameCipher, FrameKind},
    header::begin_message,
};
use crate::entropy::Entropy;

/// Writes one message, a frame at a time.
///
/// A message that was not [`finish`](Self::finish)ed is refused by every reader.
pub struct Encryptor {
    cipher: FrameCipher,
    frame_length: FrameLength,
    /// Sequence number of the next frame; the first is 1. `None` once a frame failed.
    next: Option<u32>,
    /// Plaintext that does not fill a frame yet.
    pending: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryptor")
            .field("frame_length", &self.frame_length)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Encryptor {
    /// Draws a data key, wraps it (one use of the wrapping key) and appends the header to `out`.
    ///
    /// # Errors
    /// [`MessageError::Entropy`].
    pub fn begin(
        wrap: &WrappingKey<'_>,
        context: &EncryptionContext,
        frame_length: FrameLength,
        entropy: &dyn Entropy,
        out: &mut Vec<u8>,
    ) -> Result<Self, MessageError> {
        Self::begin_issued(IssuedDataKey::issue(wrap, context, entropy)?, frame_length, entropy, out)
    }

    /// Appends the header to `out`, with a data key that somebody else issued.
    ///
    /// # Errors
    /// [`MessageError::Entropy`].
    pub fn begin_issued(
        issued: IssuedDataKey,
        frame_length: FrameLength,
        entropy: &dyn Entropy,
        out: &mut Vec<u8>,
    ) -> Result<Self, MessageError> {
        let cipher = begin_message(&issued, frame_length, entropy, out)?;
        Ok(Self { cipher, frame_length, next: Some(1), pending: Zeroizing::default() })
    }

    /// Takes plaintext and appends to `out` every frame that it completes.
    ///
    /// # Errors
    /// [`MessageError::TooManyFrames`]; the message cannot go on then.
    pub fn push(&mut self, mut plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), MessageError> {
        let frame = self.frame_length.as_usize();
        if !self.pending.is_empty() {
            let (taken, rest) = plaintext.split_at(plaintext.len().min(frame.saturating_sub(self.pending.len())));
            self.keep(taken);
            plaintext = rest;
            if self.pending.len() < frame {
                return Ok(());
            }
            let full = std::mem::take(&mut self.pending);
            self.seal(FrameKind::Regular, &full, out)?;
            self.pending = full;
            self.pending.clear();
        }
        let mut frames = plaintext.chunks_exact(frame);
        for full in &mut frames {
            self.seal(FrameKind::Regular, full, out)?;
        }
        self.keep(frames.remainder());
        Ok(())
    }

    /// Appends the final frame, which holds what is left, possibly nothing.
    ///
    /// # Errors
    /// As [`Encryptor::push`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        let last = std::mem::take(&mut self.pending);
        self.seal(FrameKind::Final, &last, out)
    }

    fn seal(&mut self, kind: FrameKind, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), MessageError> {
        let sequence = self.next.take().ok_or(MessageError::GivenUp)?;
        let next = match kind {
            FrameKind::Final => None,
            // The last number is left for the final frame.
            FrameKind::Regular => Some(sequence.checked_add(1).ok_or(MessageError::TooManyFrames)?),
        };
        self.cipher.seal(kind, sequence, plaintext, out)?;
        self.next = next;
        Ok(())
    }

    /// The buffer never grows by copying, which would leave plaintext behind; it gets its whole room at once.
    fn keep(&mut self, plaintext: &[u8]) {
        if !plaintext.is_empty() {
            if self.pending.capacity() == 0 {
                self.pending.reserve_exact(self.frame_length.as_usize());
            }
            self.pending.extend_from_slice(plaintext);
        }
    }
}

#[cfg(test)]
impl Encryptor {
    /// Pretends that all frames before this one were written.
    pub(super) fn next_is(&mut self, sequence: u32) {
        self.next = Some(sequence);
    }
}
