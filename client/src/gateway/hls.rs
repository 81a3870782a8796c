//! What an HLS packager asks for: where the key is, and the key.

use std::{fmt::Write as _, str::FromStr};

use thiserror::Error;
use tracing::info;
use transcode_confidential::ids::{KeyId, MediaContent, Period};

use super::{
    Shared,
    patience::Patience,
    reply::{self, Reply, Trouble},
};

/// Where players find a media key: a URI with `{period}`, and `{key}` and `{content}` where it wants them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUri(String);

/// Why a text is no such URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it has {{period}} in it, at most 1,024 characters, and none of spaces, quotes, < > or what is not ASCII")]
pub struct KeyUriError;

impl FromStr for KeyUri {
    type Err = KeyUriError;

    fn from_str(text: &str) -> Result<Self, KeyUriError> {
        // It stands between quotes, in a line of a playlist.
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'\\');
        let good = text.len() <= 1024 && text.contains("{period}") && text.bytes().all(plain);
        if good { Ok(Self(text.to_owned())) } else { Err(KeyUriError) }
    }
}

impl KeyUri {
    fn of(&self, key: &KeyId, content: &MediaContent, period: Period) -> String {
        let filled = self.0.replace("{key}", key.as_str()).replace("{content}", content.as_str());
        filled.replace("{period}", &period.to_string())
    }
}

/// A key info file: the key's URI for the playlist, and where the packager gets the key. Without a third line the packager
/// takes the number of the segment as its IV, as RFC 8216 section 5.2 says: no IV comes twice under a key.
pub(super) fn key_info(
    shared: &Shared,
    key: &KeyId,
    content: &MediaContent,
    period: Option<Period>,
) -> Result<Reply, Trouble> {
    let urls = shared.urls.as_ref().ok_or(Trouble::NoUrl)?;
    let period = period.unwrap_or_else(|| current_period(shared));
    let path = format!("hls/{key}/{content}/{period}/key");
    let mut text = match &shared.settings.key_uri {
        Some(template) => template.of(key, content, period),
        None => format!("{}/{path}", urls.players),
    };
    let _ = write!(text, "\n{}/{path}\n", *urls.tools);
    Ok(reply::text(text))
}

/// Periods follow the clock, so that every packager of some content, and one that was started again, is in the same.
fn current_period(shared: &Shared) -> Period {
    let now = shared.client.session().settings().clock.now();
    Period(now.0 / 1000 / shared.settings.period)
}

/// The key itself.
pub(super) async fn media_key(
    shared: &Shared,
    key: &KeyId,
    content: &MediaContent,
    period: Period,
) -> Result<Reply, Trouble> {
    let patience = Patience::new(shared.settings.patience);
    let got = patience.keep_trying(|| shared.client.media_key(key, content, period)).await?;
    info!(%key, %content, %period, version = %got.version, event = %got.receipt.sequence, "media key");
    Ok(reply::secret(got.key.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_uri_is_filled_in_and_cannot_break_a_playlist() {
        let uri: KeyUri = "https://keys.test/{key}/{content}?p={period}".parse().unwrap();
        let filled = uri.of(&"film-7".parse().unwrap(), &"1080p".parse().unwrap(), Period(3));
        assert_eq!(filled, "https://keys.test/film-7/1080p?p=3");
        for wrong in ["https://keys.test/", "{period}\"", "a {period}", "{period}\n", "é{period}", ""] {
            assert_eq!(wrong.parse::<KeyUri>(), Err(KeyUriError), "{wrong:?}");
        }
    }
}
