use super::{EncryptionContext, MessageError, WrappedDataKey, WrappingKey};
use crate::{entropy::Entropy, secret::KeyMaterial};

/// The plaintext data key of one message.
#[derive(Debug)]
pub struct DataKey(KeyMaterial);

impl DataKey {
    /// Takes over a data key that was unwrapped or issued elsewhere.
    pub const fn from_material(material: KeyMaterial) -> Self {
        Self(material)
    }

    /// The key, for those who must send it to whom it was issued.
    pub const fn material(&self) -> &KeyMaterial {
        &self.0
    }
}

/// A fresh data key in both forms, for one message under one context. [`Encryptor::begin_issued`] consumes it.
///
/// [`Encryptor::begin_issued`]: super::Encryptor::begin_issued
#[derive(Debug)]
pub struct IssuedDataKey {
    data_key: DataKey,
    wrapped: WrappedDataKey,
    context: EncryptionContext,
}

impl IssuedDataKey {
    /// Draws a data key and wraps it, bound to `context`: one use of the wrapping key.
    ///
    /// # Errors
    /// [`MessageError::Entropy`].
    pub fn issue(
        wrap: &WrappingKey<'_>,
        context: &EncryptionContext,
        entropy: &dyn Entropy,
    ) -> Result<Self, MessageError> {
        let data_key = DataKey(KeyMaterial::generate(entropy)?);
        let wrapped = WrappedDataKey::wrap(&data_key, wrap, context, entropy)?;
        Ok(Self { data_key, wrapped, context: context.clone() })
    }

    /// Puts together what [`issue`](Self::issue) made elsewhere. The parts are not checked against each other: where they
    /// do not belong together, nobody can read the message.
    pub const fn from_parts(data_key: DataKey, wrapped: WrappedDataKey, context: EncryptionContext) -> Self {
        Self { data_key, wrapped, context }
    }

    /// The plaintext key.
    pub const fn data_key(&self) -> &DataKey {
        &self.data_key
    }

    /// The wrapped key, as the message's header will carry it.
    pub const fn wrapped(&self) -> &WrappedDataKey {
        &self.wrapped
    }

    /// The context that the wrapped key is bound to.
    pub const fn context(&self) -> &EncryptionContext {
        &self.context
    }
}
