use super::{MessageError, ParsedHeader, cursor::Stop};

/// Collects the bytes of a header, however they are cut, and takes none beyond it.
///
/// Holds at most [`ParsedHeader::MAX_BYTES`], and no more than was pushed.
#[derive(Debug)]
pub struct HeaderReader {
    buffer: Vec<u8>,
    /// Length that the buffer must have before parsing gets further.
    needs: usize,
    failed: Option<MessageError>,
}

impl HeaderReader {
    /// Waits for the first byte.
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), needs: 1, failed: None }
    }

    /// Takes bytes from the front of `input` and leaves there what follows the header. `None` means that all of `input`
    /// was taken and more is needed. A header that is refused stays refused.
    ///
    /// # Errors
    /// [`MessageError::Malformed`], each time; [`MessageError::GivenUp`] behind a header that was given out.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<ParsedHeader>, MessageError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        loop {
            let (taken, rest) = input.split_at(input.len().min(self.needs.saturating_sub(self.buffer.len())));
            self.buffer.extend_from_slice(taken);
            *input = rest;
            if self.buffer.len() < self.needs {
                return Ok(None);
            }
            match ParsedHeader::parse(&self.buffer) {
                Ok((header, _)) => {
                    self.failed = Some(MessageError::GivenUp);
                    return Ok(Some(header));
                }
                Err(Stop::Needs(needs)) => self.needs = needs,
                Err(Stop::Refused(malformed)) => {
                    self.failed = Some(malformed.into());
                    return Err(malformed.into());
                }
            }
        }
    }

    /// For when the input has ended: an incomplete header is a truncated message.
    pub fn finish(self) -> MessageError {
        self.failed.unwrap_or(MessageError::Malformed(super::Malformed::Truncated))
    }
}

impl Default for HeaderReader {
    fn default() -> Self {
        Self::new()
    }
}
