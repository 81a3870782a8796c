//! Media keys: what a packager gets that encrypts by itself.

use std::sync::Arc;

use transcode_confidential::{
    audit::Receipt,
    ids::{KeyVersion, MediaContent, Period},
    keys::{KeyError, KeyRequest, MediaKey},
};

use super::{Custody, CustodyError};
use crate::grants::Permit;

/// A media key whose derivation is durably on the record.
pub struct MediaGrant {
    /// The version that it comes from.
    pub version: KeyVersion,
    /// Receipt of the `KeyUsed` event.
    pub receipt: Receipt,
    /// The key.
    pub key: MediaKey,
}

impl Custody {
    /// Derives the media key of a period of some content. The first time this is a use of the active version; from then on
    /// the period keeps that version, whatever is rotated, and asking again is recorded and not counted.
    ///
    /// # Errors
    /// [`CustodyError`]. [`KeyError::RotationDue`] has begun the rotation that it waits for.
    pub async fn media_key(
        self: &Arc<Self>,
        permit: &Permit,
        content: &MediaContent,
        period: Period,
    ) -> Result<MediaGrant, CustodyError> {
        let id = permit.key();
        let request = KeyRequest::MediaKey { content: content.clone(), period };
        let recorded = self.grant_use(&request, permit, None).await?;
        let version = recorded.event.key_version.ok_or(KeyError::Unknown)?;
        let material = self.material(id, version).await?;
        let (_event, receipt) = recorded.persisted().await?;
        permit.check()?;
        if material.revoked().is_cancelled() {
            return Err(KeyError::Revoked.into());
        }
        let key = MediaKey::derive(material.material(), id, version, content, period);
        Ok(MediaGrant { version, receipt, key })
    }
}
