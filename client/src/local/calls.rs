use std::io::{Read, Write};

use transcode_confidential::{
    message::{DataKey, EncryptionContext, MessageError, ParsedHeader, WrappedDataKey},
    protocol::api::IssueDataKeys,
};

use super::{LocalDone, LocalOptions, SealedInput, decrypt, encrypt};
use crate::{
    Client, ClientError, ContentDone, DecryptRequest, EncryptRequest, Released, error::ContentError,
    session::SessionError,
};

impl Client {
    /// As [`Client::encrypt`], on this machine's own cores. Needs the grant `issue-data-key`.
    ///
    /// # Errors
    /// [`ClientError`]; what was written so far is no message then.
    pub async fn encrypt_local(
        &self,
        request: &EncryptRequest,
        options: &LocalOptions,
        input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
    ) -> Result<(ContentDone, LocalDone), ClientError> {
        let EncryptRequest { key, context, content_id } = request.clone();
        let wanted = IssueDataKeys { context: context.clone(), content_id, ..IssueDataKeys::default() };
        let issued = self.issue_data_keys(&key, &wanted).await?.pop();
        let Released { data_key, receipt } = issued.ok_or_else(|| lost("data key"))?;
        let version = data_key.wrapped().version();
        let (options, entropy) = (options.clone(), self.session().settings().entropy.clone());
        let done = blocking(move || encrypt(data_key, &*entropy, &options, input, output)).await?;
        let LocalDone { bytes_in, bytes_out, .. } = done;
        Ok((ContentDone { key, version, context, receipt, bytes_in, bytes_out }, done))
    }

    /// As [`Client::decrypt`], on this machine's own cores. Needs the grant `decrypt`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn decrypt_local(
        &self,
        request: &DecryptRequest,
        options: &LocalOptions,
        input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
    ) -> Result<(ContentDone, LocalDone), ClientError> {
        let sealed = blocking(move || SealedInput::read(input)).await?;
        let context = sealed.header().context().clone();
        let (wrapped, Released { data_key, receipt }) =
            self.unwrap_first(wanted_keys(sealed.header(), request)?, &context, request.content_id.as_ref()).await?;
        let (key, version) = (wrapped.key_id().clone(), wrapped.version());
        let options = options.clone();
        let done = blocking(move || decrypt(sealed, &data_key, &options, output)).await?;
        let LocalDone { bytes_in, bytes_out, .. } = done;
        Ok((ContentDone { key, version, context, receipt, bytes_in, bytes_out }, done))
    }

    /// Unwraps the first of a message's data keys that may be unwrapped: others may be for other people.
    async fn unwrap_first(
        &self,
        wrapped: Vec<WrappedDataKey>,
        context: &EncryptionContext,
        content_id: Option<&String>,
    ) -> Result<(WrappedDataKey, Released<DataKey>), ClientError> {
        let mut refused = None;
        for wrapped in wrapped {
            let item = (wrapped.clone(), context.clone());
            match self.unwrap_data_keys(vec![item], content_id.cloned()).await?.pop() {
                Some(Ok(released)) => return Ok((wrapped, released)),
                Some(Err(error)) => refused = refused.or(Some(error)),
                None => return Err(lost("data key")),
            }
        }
        Err(refused.unwrap_or_else(|| lost("data key")))
    }
}

/// The wrapped data keys of a message, one at least, where it is as the request demands.
///
/// # Errors
/// [`ContentError::OtherKey`], [`ContentError::OtherContext`]; [`ContentError::Header`] where no data key is ours.
pub(crate) fn wanted_keys(
    header: &ParsedHeader,
    request: &DecryptRequest,
) -> Result<Vec<WrappedDataKey>, ContentError> {
    let mut ours: Vec<_> = header.wrapped_data_keys().cloned().collect();
    let Some(first) = ours.first().map(|first| first.key_id().clone()) else {
        return Err(ContentError::Header(MessageError::OtherKey));
    };
    if let Some(expected) = &request.expected_key {
        ours.retain(|wrapped| wrapped.key_id() == expected);
        if ours.is_empty() {
            return Err(ContentError::OtherKey { expected: expected.clone(), found: first });
        }
    }
    require(header.context(), &request.expected_context)?;
    Ok(ours)
}

fn require(context: &EncryptionContext, expected: &EncryptionContext) -> Result<(), ContentError> {
    match expected.iter().find(|(key, value)| context.value(key) != Some(value)) {
        Some((key, value)) => Err(ContentError::OtherContext { key: key.into(), value: value.into() }),
        None => Ok(()),
    }
}

/// Runs what works or waits for files where it keeps nobody else waiting.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContentError> + Send + 'static,
) -> Result<T, ContentError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ContentError::Stopped),
    }
}

fn lost(what: &str) -> ClientError {
    SessionError::Protocol(format!("the answer has no {what}")).into()
}
