use transcode_confidential::{
    ids::{KeyId, KeyVersion},
    protocol::api::{self, CreateKey, KeyChanged, KeyInfo, KeyList, RotateKey},
};

use super::{Call, Client, answer, key_path};
use crate::error::ClientError;

impl Client {
    /// Makes a key.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] where the id was ever used; any other [`ClientError`].
    pub async fn generate_key(&self, request: &CreateKey) -> Result<KeyChanged, ClientError> {
        self.change(Call::post(api::KEYS.into(), request)?).await
    }

    /// The keys that this identity has some grant for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_keys(&self) -> Result<Vec<KeyInfo>, ClientError> {
        self.call(Call::get(api::KEYS.into())).await.map(|list: KeyList| list.keys)
    }

    /// One key.
    ///
    /// # Errors
    /// [`ClientError::Denied`] where there is none or none for this identity; any other [`ClientError`].
    pub async fn key(&self, id: &KeyId) -> Result<KeyInfo, ClientError> {
        self.call(Call::get(key_path(id))).await
    }

    /// Makes the next version of a key. With `expected`, only where that version is active.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] where another version is active; any other [`ClientError`].
    pub async fn rotate_key(&self, id: &KeyId, expected: Option<KeyVersion>) -> Result<KeyChanged, ClientError> {
        let path = format!("{}/rotate", key_path(id));
        self.change(Call::post(path, &RotateKey { expected_version: expected })?).await
    }

    /// Ends a key: nothing is encrypted or decrypted under it any more.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn revoke_key(&self, id: &KeyId) -> Result<KeyChanged, ClientError> {
        self.change(Call::post_nothing(format!("{}/revoke", key_path(id)))).await
    }

    /// A change of a key counts as done when its receipt verifies.
    async fn change(&self, call: Call) -> Result<KeyChanged, ClientError> {
        let (body, view) = self.exchange(&call).await?;
        let changed: KeyChanged = answer::json(&body)?;
        self.keep_receipt(&view, &changed.receipt.0).await?;
        Ok(changed)
    }
}
