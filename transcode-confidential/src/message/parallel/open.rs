use std::{ops::Range, sync::Arc};

use zeroize::Zeroize as _;

use crate::message::{
    FrameLength, Malformed, MessageError,
    cursor::Stop,
    frame::{Frame, FrameCipher, FrameKind, TAG_LEN},
    primitives::BulkKey,
    suite::MessageId,
};

/// Follows the frames of one message whose header is authenticated, in their order.
///
/// What is complete is told by [`FrameReader::finish`], and only after every run was opened.
#[derive(Debug)]
pub struct FrameReader {
    cipher: Arc<FrameCipher>,
    frame_length: FrameLength,
    /// Number of the frame that is due; `None` after the final one or an error.
    due: Option<u32>,
    complete: bool,
}

impl FrameReader {
    pub(in crate::message) fn new(key: BulkKey, message_id: MessageId, frame_length: FrameLength) -> Self {
        Self { cipher: Arc::new(FrameCipher::new(key, message_id)), frame_length, due: Some(1), complete: false }
    }

    /// Finds the whole frames at the front of `bytes`; what is behind them must come again, with more. Nothing of them is
    /// authenticated yet.
    ///
    /// # Errors
    /// [`MessageError::Malformed`]; [`MessageError::GivenUp`] after it.
    pub fn take(&mut self, bytes: &[u8]) -> Result<FrameRun, MessageError> {
        let mut run = FrameRun { cipher: Arc::clone(&self.cipher), frames: Vec::new(), length: 0 };
        while let Some(rest) = bytes.get(run.length..).filter(|rest| !rest.is_empty()) {
            let Some(due) = self.due else {
                let complete = std::mem::take(&mut self.complete);
                return Err(if complete { Malformed::Trailing.into() } else { MessageError::GivenUp });
            };
            let (frame, length) = match Frame::parse(rest, due, self.frame_length) {
                Ok(found) => found,
                Err(Stop::Needs(_)) => break,
                Err(Stop::Refused(malformed)) => {
                    self.due = None;
                    return Err(malformed.into());
                }
            };
            let end = run.length + length;
            // The tag is the end of every frame.
            let content = end - TAG_LEN - frame.content_len()..end - TAG_LEN;
            run.frames.push(Place { kind: frame.kind, number: due, content });
            run.length = end;
            self.due = match frame.kind {
                FrameKind::Regular => due.checked_add(1),
                FrameKind::Final => None,
            };
            self.complete = frame.kind == FrameKind::Final;
        }
        Ok(run)
    }

    /// The length that every frame but the last has as a whole, in bytes.
    pub const fn whole_frame(&self) -> usize {
        self.frame_length.as_usize() + crate::message::frame::HEAD + TAG_LEN
    }

    /// Succeeds where the final frame was found.
    ///
    /// # Errors
    /// [`MessageError::Malformed`] for a message that was cut.
    pub fn finish(self) -> Result<(), MessageError> {
        if self.complete { Ok(()) } else { Err(MessageError::Malformed(Malformed::Truncated)) }
    }
}

#[derive(Debug)]
struct Place {
    kind: FrameKind,
    number: u32,
    content: Range<usize>,
}

/// Whole frames that follow on each other, to be opened.
#[derive(Debug)]
pub struct FrameRun {
    cipher: Arc<FrameCipher>,
    frames: Vec<Place>,
    length: usize,
}

impl FrameRun {
    /// How many bytes the frames take.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// How many frames they are.
    pub const fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Opens every frame where it lies, in the same bytes that it was found in. Gives the places of the plaintext, in order;
    /// where a single tag is wrong, none of it, and wipes what was opened.
    ///
    /// # Errors
    /// [`MessageError::Unauthentic`]; [`MessageError::GivenUp`] for other bytes than the run was found in.
    pub fn open(self, bytes: &mut [u8]) -> Result<Vec<Range<usize>>, MessageError> {
        let opened = self.frames.iter().try_for_each(|place| {
            let whole = place.content.start..place.content.end + TAG_LEN;
            let frame = bytes.get_mut(whole).ok_or(MessageError::GivenUp)?;
            self.cipher.open_in_place(place.kind, place.number, frame)
        });
        match opened {
            Ok(()) => Ok(self.frames.into_iter().map(|place| place.content).collect()),
            Err(error) => {
                bytes.zeroize();
                Err(error)
            }
        }
    }
}
