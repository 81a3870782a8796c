//! Data keys for work on this machine's own cores.

use bytes::Bytes;
use http::Method;
use transcode_confidential::{
    audit::Receipt,
    ids::KeyId,
    message::{DataKey, EncryptionContext, IssuedDataKey, WrappedDataKey},
    protocol::api::{
        self, ApiError, DATA_KEY_BATCH, IssueDataKeys, IssuedDataKeyInfo, IssuedDataKeys, ItemError, UnwrapDataKeys,
        UnwrapItem, UnwrapOutcome, UnwrappedDataKeyInfo, UnwrappedDataKeys, WrappedText,
    },
};
use zeroize::Zeroize as _;

use super::{Again, Call, Client, JSON, LogView, answer, key_path, sealed::open_data_key};
use crate::{
    error::{ClientError, ContentError},
    session::SessionError,
};

/// A data key that an enclave released, and the proof that this is on the record.
#[derive(Debug)]
pub struct Released<T> {
    /// The data key; wiped when it is dropped.
    pub data_key: T,
    /// The verified receipt of its event.
    pub receipt: Receipt,
}

impl Client {
    /// Asks for data keys, each for one message under the active version of `key`. There may be fewer than asked for, the
    /// first ones, where the version reached its limit in between; there is at least one.
    ///
    /// Each request that the enclave carries out is a use, so this is sent once: where the connection is lost after that, it
    /// fails, and the uses may be on the record all the same.
    ///
    /// # Errors
    /// [`ClientError::Malformed`] before anything is sent where the request makes no sense; [`SessionError::Lost`] as above; any
    /// other [`ClientError`].
    pub async fn issue_data_keys(
        &self,
        key: &KeyId,
        request: &IssueDataKeys,
    ) -> Result<Vec<Released<IssuedDataKey>>, ClientError> {
        let contexts = request.contexts().map_err(|error| unsent(&error))?;
        let body = serde_json::to_vec(request).map_err(|error| unsent(&error))?;
        let (answer, view) =
            self.exchange_secret::<IssuedDataKeys>(format!("{}/data-keys", key_path(key)), body).await?;
        let IssuedDataKeys { data_keys } = answer;
        if data_keys.is_empty() || data_keys.len() > contexts.len() {
            return Err(SessionError::Protocol(format!("{} data keys for {}", data_keys.len(), contexts.len())).into());
        }
        self.keep_receipts(&view, data_keys.iter().map(|info| &info.receipt.0)).await?;
        let caller = self.session().settings().caller.as_deref();
        let released = data_keys.into_iter().zip(contexts).map(|(info, context)| {
            let IssuedDataKeyInfo { key: material, wrapped: WrappedText(wrapped), receipt } = info;
            if wrapped.key_id() != key {
                let (expected, found) = (key.clone(), wrapped.key_id().clone());
                return Err(ContentError::OtherKey { expected, found }.into());
            }
            let data_key =
                IssuedDataKey::from_parts(DataKey::from_material(open_data_key(material, caller)?), wrapped, context);
            Ok(Released { data_key, receipt: receipt.0 })
        });
        released.collect()
    }

    /// Asks for the plaintext of wrapped data keys, at most [`DATA_KEY_BATCH`], each with the whole context of its message.
    /// One result for each, in order. Each request that the enclave carries out is on the record, so this is sent once, as
    /// [`Client::issue_data_keys`].
    ///
    /// # Errors
    /// [`ClientError`], where the request as a whole fails.
    pub async fn unwrap_data_keys(
        &self,
        items: Vec<(WrappedDataKey, EncryptionContext)>,
        content_id: Option<String>,
    ) -> Result<Vec<Result<Released<DataKey>, ClientError>>, ClientError> {
        if !(1..=DATA_KEY_BATCH).contains(&items.len()) {
            return Err(unsent(&api::DataKeysError::Count));
        }
        let count = items.len();
        let items = items.into_iter().map(|(wrapped, context)| UnwrapItem { wrapped: WrappedText(wrapped), context });
        let request = UnwrapDataKeys { content_id, items: items.collect() };
        let body = serde_json::to_vec(&request).map_err(|error| unsent(&error))?;
        let (answer, view) = self.exchange_secret::<UnwrappedDataKeys>(api::UNWRAP_DATA_KEYS.into(), body).await?;
        if answer.items.len() != count {
            return Err(SessionError::Protocol(format!("{} results for {count} items", answer.items.len())).into());
        }
        let receipts = answer.items.iter().filter_map(|item| match item {
            UnwrapOutcome::DataKey(info) => Some(&info.receipt.0),
            UnwrapOutcome::Error(_) => None,
        });
        self.keep_receipts(&view, receipts).await?;
        let caller = self.session().settings().caller.as_deref();
        let results = answer.items.into_iter().map(|item| match item {
            UnwrapOutcome::DataKey(info) => {
                let UnwrappedDataKeyInfo { key, receipt } = *info;
                let data_key = DataKey::from_material(open_data_key(key, caller)?);
                Ok(Released { data_key, receipt: receipt.0 })
            }
            UnwrapOutcome::Error(ItemError { code, message, retryable }) => {
                Err(ApiError { code, message, retryable, request_id: String::new() }.into())
            }
        });
        Ok(results.collect())
    }

    /// An answer that holds secrets: what of its bytes is ours is wiped.
    async fn exchange_secret<T: serde::de::DeserializeOwned>(
        &self,
        path: String,
        body: Vec<u8>,
    ) -> Result<(T, std::sync::Arc<LogView>), ClientError> {
        let body = Some((JSON, body.into()));
        let call = Call { method: Method::POST, path, body, takes_away: false, again: Again::Unsent };
        let (answer, view) = self.exchange(&call).await?;
        let read = answer::json(&answer);
        wipe(answer);
        Ok((read?, view))
    }

    /// Verifies the receipts of one answer and remembers the newest of their seals.
    async fn keep_receipts<'a>(
        &self,
        view: &LogView,
        receipts: impl Iterator<Item = &'a Receipt> + Clone,
    ) -> Result<(), ClientError> {
        view.checkpoint().verify_receipts(receipts.clone())?;
        match receipts.max_by_key(|receipt| receipt.seal.state.size) {
            Some(newest) => self.keep_receipt(view, newest).await,
            None => Ok(()),
        }
    }
}

/// Bytes that somebody else still holds are left as they are.
fn wipe(bytes: Bytes) {
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.as_mut().zeroize();
    }
}

fn unsent(error: &dyn std::fmt::Display) -> ClientError {
    ApiError {
        code: api::ErrorCode::Malformed,
        message: error.to_string(),
        retryable: false,
        request_id: "not sent".into(),
    }
    .into()
}
