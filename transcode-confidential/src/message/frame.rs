use zeroize::Zeroize;

use super::{
    Malformed, MessageError,
    cursor::{Cursor, Stop},
    primitives::{BulkKey, Nonce, Tag},
    suite::MessageId,
};

/// Announces the final frame, where another frame has its sequence number.
const FINAL_MARK: u32 = u32::MAX;
const IV_LEN: usize = 12;
pub(super) const TAG_LEN: usize = 16;
/// What precedes the content of a regular frame: number and IV.
pub(super) const HEAD: usize = 4 + IV_LEN;
/// The same of the final frame, which has a mark and a length as well.
pub(super) const FINAL_HEAD: usize = 4 + HEAD + 4;

/// Length of the content of every frame but the last, in bytes: 1 to 16 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameLength(u32);

impl FrameLength {
    /// The longest that is written and read.
    pub const MAX: Self = Self(16 << 20);
    /// What writers use unless they know better: 64 KiB.
    pub const DEFAULT: Self = Self(64 << 10);

    /// A frame length within bounds.
    ///
    /// # Errors
    /// [`MessageError::FrameLength`].
    pub const fn new(bytes: u32) -> Result<Self, MessageError> {
        if bytes == 0 || bytes > Self::MAX.0 { Err(MessageError::FrameLength(bytes)) } else { Ok(Self(bytes)) }
    }

    /// The length in bytes.
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// The length in bytes.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl Default for FrameLength {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u32> for FrameLength {
    type Error = MessageError;

    fn try_from(bytes: u32) -> Result<Self, MessageError> {
        Self::new(bytes)
    }
}

/// Whether more frames follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    Regular,
    Final,
}

impl FrameKind {
    /// Encryption SDK specification, data-format/message-body-aad, "Body AAD Content".
    const fn aad_content(self) -> &'static [u8] {
        match self {
            Self::Regular => b"AWSKMSEncryptionClient Frame",
            Self::Final => b"AWSKMSEncryptionClient Final Frame",
        }
    }
}

/// A frame as it was received.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: FrameKind,
    sequence: u32,
    ciphertext: &'a [u8],
    tag: Tag,
}

impl<'a> Frame<'a> {
    pub(super) const fn content_len(&self) -> usize {
        self.ciphertext.len()
    }

    /// Reads the frame that is due from the front of `input`, and its length. Everything that can be refused before the
    /// ciphertext has arrived is.
    pub(super) fn parse(input: &'a [u8], due: u32, frame_length: FrameLength) -> Result<(Self, usize), Stop> {
        let mut cursor = Cursor::new(input);
        let (kind, sequence) = match cursor.u32()? {
            FINAL_MARK => (FrameKind::Final, cursor.u32()?),
            sequence => (FrameKind::Regular, sequence),
        };
        if sequence != due {
            return Err(Malformed::Sequence { expected: due, found: sequence }.into());
        }
        if cursor.array::<IV_LEN>()? != nonce(due).0 {
            return Err(Malformed::FrameIv(due).into());
        }
        let length = match kind {
            FrameKind::Regular => frame_length.0,
            FrameKind::Final => cursor.u32()?,
        };
        if length > frame_length.0 {
            return Err(Malformed::FinalFrameLength(length).into());
        }
        // At most FrameLength::MAX, so it fits.
        let ciphertext = cursor.bytes(length as usize)?;
        let tag = Tag(cursor.array()?);
        Ok((Self { kind, sequence, ciphertext, tag }, cursor.at()))
    }
}

/// Seals and opens the frames of one message.
#[derive(Debug)]
pub(super) struct FrameCipher {
    key: BulkKey,
    message_id: MessageId,
}

impl FrameCipher {
    pub(super) const fn new(key: BulkKey, message_id: MessageId) -> Self {
        Self { key, message_id }
    }

    /// Appends a whole frame to `out`.
    pub(super) fn seal(
        &self,
        kind: FrameKind,
        sequence: u32,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), MessageError> {
        // Room for all of it first: growing later would leave a copy of the plaintext behind.
        out.reserve(plaintext.len() + 4 + 4 + IV_LEN + 4 + TAG_LEN);
        if kind == FrameKind::Final {
            out.extend_from_slice(&FINAL_MARK.to_be_bytes());
        }
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&nonce(sequence).0);
        if kind == FrameKind::Final {
            out.extend_from_slice(&content_length(plaintext).to_be_bytes());
        }
        let start = out.len();
        out.extend_from_slice(plaintext);
        let content = out.get_mut(start..).unwrap_or_default();
        match self.key.seal(nonce(sequence), self.aad(kind, sequence, plaintext.len()).bytes(), content) {
            Ok(Tag(tag)) => {
                out.extend_from_slice(&tag);
                Ok(())
            }
            Err(_) => {
                forget(out, start);
                Err(MessageError::Unauthentic)
            }
        }
    }

    /// Appends the plaintext of a frame to `out`, or nothing.
    pub(super) fn open(&self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<(), MessageError> {
        let aad = self.aad(frame.kind, frame.sequence, frame.ciphertext.len());
        let start = out.len();
        out.extend_from_slice(frame.ciphertext);
        let content = out.get_mut(start..).unwrap_or_default();
        self.key.open(nonce(frame.sequence), aad.bytes(), content, frame.tag).map_err(|_| {
            forget(out, start);
            MessageError::Unauthentic
        })
    }

    /// Makes a whole frame out of its content, which lies behind room for the head and before room for the tag.
    pub(super) fn seal_in_place(&self, kind: FrameKind, sequence: u32, frame: &mut [u8]) -> Result<(), MessageError> {
        let head_len = if kind == FrameKind::Final { FINAL_HEAD } else { HEAD };
        let Some(((head, content), tag)) = frame
            .split_last_chunk_mut::<TAG_LEN>()
            .and_then(|(rest, tag)| Some((rest.split_at_mut_checked(head_len)?, tag)))
        else {
            return Err(MessageError::GivenUp);
        };
        let (mark, length) = (FINAL_MARK.to_be_bytes(), content_length(content).to_be_bytes());
        let (number, iv) = (sequence.to_be_bytes(), nonce(sequence).0);
        let fields: [&[u8]; 4] = match kind {
            FrameKind::Regular => [&[], &number, &iv, &[]],
            FrameKind::Final => [&mark, &number, &iv, &length],
        };
        head.iter_mut().zip(fields.into_iter().flatten()).for_each(|(slot, byte)| *slot = *byte);
        let aad = self.aad(kind, sequence, content.len());
        let sealed = self.key.seal(nonce(sequence), aad.bytes(), content);
        let Tag(sealed) = sealed.map_err(|_| MessageError::Unauthentic)?;
        *tag = sealed;
        Ok(())
    }

    /// Makes plaintext out of content and tag where they lie. On error the content must not be used.
    pub(super) fn open_in_place(&self, kind: FrameKind, sequence: u32, frame: &mut [u8]) -> Result<(), MessageError> {
        let (content, tag) = frame.split_last_chunk_mut::<TAG_LEN>().ok_or(MessageError::GivenUp)?;
        let aad = self.aad(kind, sequence, content.len());
        self.key.open(nonce(sequence), aad.bytes(), content, Tag(*tag)).map_err(|_| MessageError::Unauthentic)
    }

    /// Encryption SDK specification, data-format/message-body-aad.
    fn aad(&self, kind: FrameKind, sequence: u32, content: usize) -> FrameAad {
        let (number, length) = (sequence.to_be_bytes(), (content as u64).to_be_bytes());
        let fields: [&[u8]; 4] = [self.message_id.as_bytes(), kind.aad_content(), &number, &length];
        let mut aad = FrameAad { bytes: [0; FrameAad::ROOM], length: fields.iter().map(|field| field.len()).sum() };
        aad.bytes.iter_mut().zip(fields.into_iter().flatten()).for_each(|(slot, byte)| *slot = *byte);
        aad
    }
}

/// The associated data of one frame.
struct FrameAad {
    bytes: [u8; Self::ROOM],
    length: usize,
}

impl FrameAad {
    const ROOM: usize = 80;

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A frame's IV is its sequence number, big endian.
fn nonce(sequence: u32) -> Nonce {
    Nonce((u128::from(sequence) << 32).to_be_bytes().first_chunk().copied().unwrap_or_default())
}

/// Contents are at most [`FrameLength::MAX`] long.
fn content_length(content: &[u8]) -> u32 {
    u32::try_from(content.len()).unwrap_or(u32::MAX)
}

/// Wipes and removes what was appended since `start`.
fn forget(out: &mut Vec<u8>, start: usize) {
    out.get_mut(start..).unwrap_or_default().zeroize();
    out.truncate(start);
}
