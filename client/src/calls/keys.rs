use transcode_confidential::{
    ids::{KeyId, KeyVersion},
    protocol::api::{
        self, Batch, BatchOperation, BatchReply, BatchResult, ChangeKey, CreateKey, DecryptFrom, KeyChanged, KeyInfo,
        KeyList, RotateKey,
    },
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
        self.take_away(id, "revoke", None).await
    }

    /// Suspends a key: no use of it until it is resumed. With `expected`, only where that version is active.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn suspend_key(&self, id: &KeyId, expected: Option<KeyVersion>) -> Result<KeyChanged, ClientError> {
        self.take_away(id, "suspend", expected).await
    }

    /// Takes a suspension back.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] where it is not suspended; any other [`ClientError`].
    pub async fn resume_key(&self, id: &KeyId, expected: Option<KeyVersion>) -> Result<KeyChanged, ClientError> {
        let path = format!("{}/resume", key_path(id));
        self.change(Call::post(path, &ChangeKey { expected_version: expected })?).await
    }

    /// Ends a key, also one that was revoked, and has the enclave forget its wrapped records. The parent may keep copies of
    /// them; beyond its and the enclave's reach they are only when the KMS key is deleted.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn destroy_key(&self, id: &KeyId, expected: Option<KeyVersion>) -> Result<KeyChanged, ClientError> {
        self.take_away(id, "destroy", expected).await
    }

    /// The same for one version that is not active.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] for the active version; any other [`ClientError`].
    pub async fn destroy_version(&self, id: &KeyId, version: KeyVersion) -> Result<KeyChanged, ClientError> {
        self.take_away(id, &format!("versions/{version}/destroy"), None).await
    }

    /// Has messages of versions before `version` refused. It may be lowered again.
    ///
    /// # Errors
    /// [`ClientError::Conflict`] where it is so already; any other [`ClientError`].
    pub async fn decrypt_from(
        &self,
        id: &KeyId,
        version: KeyVersion,
        expected: Option<KeyVersion>,
    ) -> Result<KeyChanged, ClientError> {
        let path = format!("{}/decrypt-from", key_path(id));
        self.change(Call::post(path, &DecryptFrom { version, expected_version: expected })?).await
    }

    /// Does several things, each to another key: in no order, each with a result of its own, and all durable or refused when
    /// this returns.
    ///
    /// # Errors
    /// [`ClientError`] where the batch as a whole was not carried out, or a receipt in the answer does not verify.
    pub async fn batch(&self, operations: Vec<BatchOperation>) -> Result<Vec<BatchResult>, ClientError> {
        let asked = operations.len();
        let (body, view) = self.exchange(&Call::post(api::BATCH.into(), &Batch { operations })?).await?;
        let BatchReply { results } = answer::json(&body)?;
        if results.len() != asked {
            return Err(crate::session::SessionError::Protocol("a batch with another number of results".into()).into());
        }
        for changed in results.iter().filter_map(|result| result.changed.as_ref()) {
            self.keep_receipt(&view, &changed.receipt.0).await?;
        }
        Ok(results)
    }

    async fn take_away(&self, id: &KeyId, what: &str, expected: Option<KeyVersion>) -> Result<KeyChanged, ClientError> {
        let path = format!("{}/{what}", key_path(id));
        self.change(Call::post(path, &ChangeKey { expected_version: expected })?.that_takes_away()).await
    }

    /// A change of a key counts as done when its receipt verifies.
    async fn change(&self, call: Call) -> Result<KeyChanged, ClientError> {
        let (body, view) = self.exchange(&call).await?;
        let changed: KeyChanged = answer::json(&body)?;
        self.keep_receipt(&view, &changed.receipt.0).await?;
        Ok(changed)
    }
}
