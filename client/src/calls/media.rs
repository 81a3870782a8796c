use transcode_confidential::{
    audit::Receipt,
    ids::{KeyId, KeyVersion, MediaContent, Period},
    message::EncryptionContext,
    protocol::api::SEALED_HEADER,
};
use zeroize::Zeroizing;

use super::{
    Call, Client,
    content::{Expected, Used},
    key_path, sealed,
};
use crate::{error::ClientError, session::SessionError};

/// A media key, whose derivation is proven to be on the record.
pub struct MediaKey {
    /// The 16 bytes of an AES-128 key.
    pub key: Zeroizing<[u8; 16]>,
    /// The version that it comes from.
    pub version: KeyVersion,
    /// The verified receipt of the use.
    pub receipt: Receipt,
}

impl Client {
    /// The media key of a period of some content: the same each time it is asked for. The first time is a use of the key;
    /// asking again is none, so this is repeated where a connection is lost.
    ///
    /// ```no_run
    /// # async fn f(client: client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let media = client.media_key(&"film-7".parse()?, &"1080p".parse()?, transcode_confidential::ids::Period(0)).await?;
    /// std::fs::write("segment.key", &*media.key)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn media_key(&self, id: &KeyId, content: &MediaContent, period: Period) -> Result<MediaKey, ClientError> {
        let path = format!("{}/media-keys/{content}/{period}", key_path(id));
        let (response, view) = self.exchange_whole(&Call::get(path)).await?;
        let expected = Expected { key: Some(id), context: &EncryptionContext::new() };
        let Used { version, receipt, .. } = Used::read(response.headers(), &expected)?;
        self.keep_receipt(&view, &receipt).await?;
        let caller = self.session().settings().caller.as_deref();
        let is_sealed = response.headers().contains_key(SEALED_HEADER);
        let bytes = response.into_body();
        let key = match (is_sealed, caller) {
            (true, caller) => sealed::open(&bytes, caller)?,
            (false, None) => {
                let key = <[u8; 16]>::try_from(&bytes[..]);
                Zeroizing::new(key.map_err(|_| SessionError::Protocol("not a key of 16 bytes".into()))?)
            }
            (false, Some(_)) => return Err(SessionError::NotSealed("it came in plain").into()),
        };
        Ok(MediaKey { key, version, receipt })
    }
}

impl std::fmt::Debug for MediaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaKey").field("version", &self.version).finish_non_exhaustive()
    }
}
