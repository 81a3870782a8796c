use std::fmt;

use zeroize::Zeroizing;

use super::{Decryptor, Encryptor, MessageError, ParsedHeader, WrappingKey};
use crate::entropy::Entropy;

/// Turns a message into one of the same content, context and frame length under another key version, a frame at a time; no
/// plaintext comes out.
///
/// Writing only the header anew would keep the message's frame key, and the tag of every header is made under the same IV:
/// two headers under one frame key would betray the authentication key to whoever holds both, who could then change frames
/// unnoticed. So the new message has a data key, an id and frames of its own.
pub struct Reencryptor {
    reader: Decryptor,
    writer: Encryptor,
}

impl fmt::Debug for Reencryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reencryptor").field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl Reencryptor {
    /// Authenticates the header under `from`, draws a data key, wraps it under `to` (one use of it) and appends the new header
    /// to `out`.
    ///
    /// # Errors
    /// [`MessageError`]; nothing is appended then.
    pub fn begin(
        header: ParsedHeader,
        from: &WrappingKey<'_>,
        to: &WrappingKey<'_>,
        entropy: &dyn Entropy,
        out: &mut Vec<u8>,
    ) -> Result<Self, MessageError> {
        let (context, frame_length) = (header.context().clone(), header.frame_length());
        let reader = header.unwrap(from)?;
        let writer = Encryptor::begin(to, &context, frame_length, entropy, out)?;
        Ok(Self::new(reader, writer))
    }

    /// Puts together a reader and a writer that have their headers behind them: what the one reads, the other writes.
    pub const fn new(reader: Decryptor, writer: Encryptor) -> Self {
        Self { reader, writer }
    }

    /// Takes bytes of the old message and appends what they come to in the new one. On error the new message is never
    /// finished, so every reader refuses it.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), MessageError> {
        // Room for all that can come out keeps plaintext from being left behind by growing.
        let room = input.len() + self.reader.buffered();
        let mut plaintext = Zeroizing::new(Vec::with_capacity(room));
        self.reader.push(input, &mut plaintext)?;
        self.writer.push(&plaintext, out)
    }

    /// Appends the final frame, where the old message was complete.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn finish(self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        self.reader.finish()?;
        self.writer.finish(out)
    }
}
