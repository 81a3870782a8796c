use super::{
    Decryptor, EncryptionContext, FrameLength, FrameReader, IssuedDataKey, MAX_ENCRYPTED_DATA_KEYS, Malformed,
    MessageError, PROVIDER_ID, WrappedDataKey, WrappingKey,
    context::put_length,
    cursor::{Cursor, Stop},
    data_key::DataKey,
    frame::FrameCipher,
    primitives::Tag,
    suite::{Commitment, MessageId, MessageKeys, SUITE_ID},
};
use crate::entropy::Entropy;

const VERSION: u8 = 2;
const FRAMED: u8 = 2;
const MAX_PROVIDER_ID: usize = 128;
const MAX_PROVIDER_INFO: usize = 2048;
const MAX_CIPHERTEXT: usize = 2048;
/// From version to data key count, then every data key, then from content type to tag.
const MAX_HEADER: usize = (1 + 2 + MessageId::LEN + 2 + EncryptionContext::MAX_BYTES + 2)
    + MAX_ENCRYPTED_DATA_KEYS * (6 + MAX_PROVIDER_ID + MAX_PROVIDER_INFO + MAX_CIPHERTEXT)
    + (1 + 4 + Commitment::LEN + 16);

/// One of the wrapped copies of a message's data key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncryptedDataKey {
    /// Wrapped under a content key of this project.
    Ours(WrappedDataKey),
    /// Wrapped by another provider; ignored when reading.
    Foreign {
        /// The provider's id, as the message claims it.
        provider_id: String,
    },
}

impl EncryptedDataKey {
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Stop> {
        let provider = cursor.short_bytes(MAX_PROVIDER_ID)?.ok_or(Malformed::DataKeyField)?;
        let info = cursor.short_bytes(MAX_PROVIDER_INFO)?.ok_or(Malformed::DataKeyField)?;
        let ciphertext = cursor.short_bytes(MAX_CIPHERTEXT)?.ok_or(Malformed::DataKeyField)?;
        if provider == PROVIDER_ID.as_bytes() {
            return Ok(Self::Ours(WrappedDataKey::parse(info, ciphertext).ok_or(Malformed::ProviderInfo)?));
        }
        let provider_id = String::from_utf8(provider.to_vec()).map_err(|_| Malformed::DataKeyField)?;
        Ok(Self::Foreign { provider_id })
    }
}

/// A complete header, of which **nothing is authenticated yet**: that is what [`unwrap`](Self::unwrap) and
/// [`decrypt_with`](Self::decrypt_with) do.
#[derive(Debug)]
pub struct ParsedHeader {
    /// The received header body, over which the tag is verified.
    body: Vec<u8>,
    message_id: MessageId,
    context: EncryptionContext,
    data_keys: Vec<EncryptedDataKey>,
    frame_length: FrameLength,
    commitment: Commitment,
    tag: Tag,
}

impl ParsedHeader {
    /// Longest header, in bytes.
    pub const MAX_BYTES: usize = MAX_HEADER;

    /// The context that the message claims.
    pub const fn context(&self) -> &EncryptionContext {
        &self.context
    }

    /// The message's id.
    pub const fn message_id(&self) -> &MessageId {
        &self.message_id
    }

    /// Content length of every frame but the last.
    pub const fn frame_length(&self) -> FrameLength {
        self.frame_length
    }

    /// All wrapped copies of the data key, at most [`MAX_ENCRYPTED_DATA_KEYS`].
    pub fn encrypted_data_keys(&self) -> &[EncryptedDataKey] {
        &self.data_keys
    }

    /// Those wrapped under content keys of this project.
    pub fn wrapped_data_keys(&self) -> impl Iterator<Item = &WrappedDataKey> {
        self.data_keys.iter().filter_map(|data_key| match data_key {
            EncryptedDataKey::Ours(wrapped) => Some(wrapped),
            EncryptedDataKey::Foreign { .. } => None,
        })
    }

    /// Refuses a message that lacks any of these pairs. It may have more.
    ///
    /// # Errors
    /// [`MessageError::OtherContext`].
    pub fn require_context(&self, expected: &EncryptionContext) -> Result<(), MessageError> {
        if self.context.includes(expected) { Ok(()) } else { Err(MessageError::OtherContext) }
    }

    /// Unwraps the data key and authenticates the header, context included.
    ///
    /// # Errors
    /// [`MessageError::OtherKey`] where none of its data keys is wrapped under this key; [`MessageError::Unauthentic`].
    pub fn unwrap(self, wrap: &WrappingKey<'_>) -> Result<Decryptor, MessageError> {
        let data_key = self.unwrap_data_key(wrap)?;
        self.decrypt_with(&data_key)
    }

    /// Authenticates the header, context included, with a data key that was unwrapped elsewhere.
    ///
    /// # Errors
    /// [`MessageError::Unauthentic`].
    pub fn decrypt_with(self, data_key: &DataKey) -> Result<Decryptor, MessageError> {
        let keys = self.authenticate(data_key)?;
        Ok(Decryptor::new(keys.key, self.message_id, self.frame_length))
    }

    /// As [`decrypt_with`](Self::decrypt_with), for those who open frames on several cores.
    ///
    /// # Errors
    /// [`MessageError::Unauthentic`].
    pub fn frames_with(self, data_key: &DataKey) -> Result<FrameReader, MessageError> {
        let keys = self.authenticate(data_key)?;
        Ok(FrameReader::new(keys.key, self.message_id, self.frame_length))
    }

    /// The first copy that opens; several may name the same key version.
    fn unwrap_data_key(&self, wrap: &WrappingKey<'_>) -> Result<DataKey, MessageError> {
        let mut outcome = Err(MessageError::OtherKey);
        for wrapped in self.wrapped_data_keys().filter(|wrapped| wrapped.is_under(wrap)) {
            outcome = wrapped.unwrap(wrap, &self.context);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Commitment first, header tag second; both before any frame is looked at.
    fn authenticate(&self, data_key: &DataKey) -> Result<MessageKeys, MessageError> {
        let keys = MessageKeys::derive(data_key, &self.message_id)?;
        keys.commitment.require(self.commitment)?;
        keys.verify_header(&self.body, self.tag)?;
        Ok(keys)
    }

    /// Reads a header from the front of `input`, and its length.
    pub(super) fn parse(input: &[u8]) -> Result<(Self, usize), Stop> {
        let mut cursor = Cursor::new(input);
        match cursor.u8()? {
            VERSION => {}
            other => return Err(Malformed::Version(other).into()),
        }
        match cursor.u16()? {
            SUITE_ID => {}
            other => return Err(Malformed::Suite(other).into()),
        }
        let message_id = MessageId::new(cursor.array()?);
        let context = cursor
            .short_bytes(EncryptionContext::MAX_BYTES)?
            .ok_or(super::ContextError::TooLong)
            .and_then(EncryptionContext::deserialize)
            .map_err(Malformed::Context)?;
        let count = cursor.u16()?;
        if !(1..=MAX_ENCRYPTED_DATA_KEYS).contains(&usize::from(count)) {
            return Err(Malformed::DataKeyCount(count).into());
        }
        let data_keys = (0..count).map(|_| EncryptedDataKey::parse(&mut cursor)).collect::<Result<_, _>>()?;
        match cursor.u8()? {
            FRAMED => {}
            other => return Err(Malformed::ContentType(other).into()),
        }
        let length = cursor.u32()?;
        let frame_length = FrameLength::new(length).map_err(|_| Malformed::FrameLength(length))?;
        let commitment = Commitment(cursor.array()?);
        let body = input.get(..cursor.at()).unwrap_or_default().to_vec();
        let tag = Tag(cursor.array()?);
        Ok((Self { body, message_id, context, data_keys, frame_length, commitment, tag }, cursor.at()))
    }
}

/// Begins a message under a data key that is for it alone: appends its header to `out`, and gives what seals its frames.
pub(super) fn begin_message(
    issued: &IssuedDataKey,
    frame_length: FrameLength,
    entropy: &dyn Entropy,
    out: &mut Vec<u8>,
) -> Result<FrameCipher, MessageError> {
    let message_id = MessageId::generate(entropy)?;
    let keys = MessageKeys::derive(issued.data_key(), &message_id)?;
    write_header(&keys, &message_id, issued.context(), issued.wrapped(), frame_length, out)?;
    Ok(FrameCipher::new(keys.key, message_id))
}

/// Appends a header with one wrapped data key, and its tag.
pub(super) fn write_header(
    keys: &MessageKeys,
    message_id: &MessageId,
    context: &EncryptionContext,
    wrapped: &WrappedDataKey,
    frame_length: FrameLength,
    out: &mut Vec<u8>,
) -> Result<(), MessageError> {
    let mut body = vec![VERSION];
    body.extend_from_slice(&SUITE_ID.to_be_bytes());
    body.extend_from_slice(message_id.as_bytes());
    let context = context.serialize();
    put_length(&mut body, context.len());
    body.extend_from_slice(&context);
    put_length(&mut body, 1);
    body.extend_from_slice(&wrapped.to_bytes());
    body.push(FRAMED);
    body.extend_from_slice(&frame_length.as_u32().to_be_bytes());
    body.extend_from_slice(&keys.commitment.0);
    let Tag(tag) = keys.header_tag(&body)?;
    out.extend_from_slice(&body);
    out.extend_from_slice(&tag);
    Ok(())
}
