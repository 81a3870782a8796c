use super::{
    FrameLength, Malformed, MessageError,
    cursor::Stop,
    frame::{Frame, FrameCipher, FrameKind},
    primitives::BulkKey,
    suite::MessageId,
};

/// Reads one message whose header is authenticated, a frame at a time.
///
/// Buffers at most one frame, and never more than was pushed.
#[derive(Debug)]
pub struct Decryptor {
    cipher: FrameCipher,
    frame_length: FrameLength,
    state: State,
    /// The beginning of the frame that is due.
    buffer: Vec<u8>,
    /// Length that the buffer must have before parsing gets further.
    needs: usize,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The frame with this sequence number is due.
    Due(u32),
    /// The final frame was verified.
    Complete,
    Failed,
}

impl Decryptor {
    pub(super) const fn new(key: BulkKey, message_id: MessageId, frame_length: FrameLength) -> Self {
        let cipher = FrameCipher::new(key, message_id);
        Self { cipher, frame_length, state: State::Due(1), buffer: Vec::new(), needs: 1 }
    }

    /// Bytes that wait for the rest of their frame.
    pub(super) const fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Takes bytes of the message and appends to `out` the plaintext of every frame that they complete, each after its
    /// tag was verified and in order.
    ///
    /// On error `out` may have gained frames that precede the bad one; they are authentic, and the message is not to be
    /// trusted to be complete. Every later call fails.
    ///
    /// # Errors
    /// [`MessageError::Malformed`], [`MessageError::Unauthentic`]; [`MessageError::GivenUp`] after either.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), MessageError> {
        self.advance(input, out).inspect_err(|_| self.state = State::Failed)
    }

    /// Succeeds where the final frame was verified. Only then is what was released the whole message.
    ///
    /// # Errors
    /// [`MessageError::Malformed`] for a message that was cut; [`MessageError::GivenUp`].
    pub fn finish(self) -> Result<(), MessageError> {
        match self.state {
            State::Complete => Ok(()),
            State::Due(_) => Err(Malformed::Truncated.into()),
            State::Failed => Err(MessageError::GivenUp),
        }
    }

    /// Whether the final frame was verified; bytes that follow it are still refused.
    pub const fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    fn advance(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), MessageError> {
        while !input.is_empty() {
            let due = match self.state {
                State::Due(due) => due,
                State::Complete => return Err(Malformed::Trailing.into()),
                State::Failed => return Err(MessageError::GivenUp),
            };
            // Whole frames are opened where they lie; only what is left of the input is copied.
            if self.buffer.is_empty() {
                match Frame::parse(input, due, self.frame_length) {
                    Ok((frame, length)) => {
                        self.cipher.open(&frame, out)?;
                        self.state = following(frame.kind, due);
                        input = input.get(length..).unwrap_or_default();
                        continue;
                    }
                    Err(Stop::Needs(needs)) => self.needs = needs,
                    Err(Stop::Refused(malformed)) => return Err(malformed.into()),
                }
            }
            let (taken, rest) = input.split_at(input.len().min(self.needs.saturating_sub(self.buffer.len())));
            self.collect(taken);
            input = rest;
            if self.buffer.len() < self.needs {
                break;
            }
            match Frame::parse(&self.buffer, due, self.frame_length) {
                Ok((frame, _)) => {
                    self.cipher.open(&frame, out)?;
                    self.state = following(frame.kind, due);
                    self.buffer.clear();
                }
                Err(Stop::Needs(needs)) => self.needs = needs,
                Err(Stop::Refused(malformed)) => return Err(malformed.into()),
            }
        }
        Ok(())
    }

    /// Grows with what arrives, doubling, and never beyond the frame.
    fn collect(&mut self, bytes: &[u8]) {
        let length = self.buffer.len() + bytes.len();
        if length > self.buffer.capacity() {
            let room = length.max(self.buffer.capacity().saturating_mul(2)).min(self.needs.max(length));
            self.buffer.reserve_exact(room - self.buffer.len());
        }
        self.buffer.extend_from_slice(bytes);
    }
}

const fn following(kind: FrameKind, sequence: u32) -> State {
    match (kind, sequence.checked_add(1)) {
        (FrameKind::Final, _) => State::Complete,
        (FrameKind::Regular, Some(next)) => State::Due(next),
        // A regular frame's number is below the mark of the final one.
        (FrameKind::Regular, None) => State::Failed,
    }
}

#[cfg(test)]
impl Decryptor {
    pub(super) fn buffered_capacity(&self) -> usize {
        self.buffer.capacity()
    }
}
