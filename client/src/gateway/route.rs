use transcode_confidential::ids::{KeyId, MediaContent, Period};

/// What a path stands for, behind the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/hls/{key}/{content}/keyinfo` and `/hls/{key}/{content}/{period}/keyinfo`.
    KeyInfo { key: KeyId, content: MediaContent, period: Option<Period> },
    /// `/hls/{key}/{content}/{period}/key`.
    MediaKey { key: KeyId, content: MediaContent, period: Period },
    /// `/v1/...`: the enclave's own API.
    Api { receipt_needed: bool },
    /// `/health`.
    Health,
}

impl Route {
    /// The route of a path. A path has one form: nothing is decoded, and nothing is left out.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix('/')?.splitn(8, '/').collect();
        match parts[..] {
            ["hls", key, content, "keyinfo"] => {
                Some(Self::KeyInfo { key: key.parse().ok()?, content: content.parse().ok()?, period: None })
            }
            ["hls", key, content, period, what @ ("keyinfo" | "key")] => {
                let (key, content, period) = (key.parse().ok()?, content.parse().ok()?, number(period)?);
                Some(match what {
                    "key" => Self::MediaKey { key, content, period },
                    _ => Self::KeyInfo { key, content, period: Some(period) },
                })
            }
            ["health"] => Some(Self::Health),
            ["v1", ..] if parts.iter().all(|part| is_plain(part)) => {
                let receipt_needed = matches!(
                    parts[..],
                    ["v1", "decrypt"] | ["v1", "keys", _, "encrypt"] | ["v1", "keys", _, "media-keys", _, _]
                );
                Some(Self::Api { receipt_needed })
            }
            _ => None,
        }
    }
}

/// Whether the enclave cannot read it otherwise than we do.
fn is_plain(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-' | '@');
    !matches!(part, "" | "." | "..") && part.chars().all(plain)
}

fn number(text: &str) -> Option<Period> {
    text.parse::<u64>().ok().filter(|number| number.to_string() == text).map(Period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form() {
        let (key, content) = ("film-7".parse().unwrap(), "1080p".parse().unwrap());
        let period = Period(12);
        assert_eq!(Route::parse("/hls/film-7/1080p/12/key"), Some(Route::MediaKey { key, content, period }));
        assert!(matches!(Route::parse("/hls/film-7/1080p/keyinfo"), Some(Route::KeyInfo { period: None, .. })));
        assert!(matches!(Route::parse("/hls/f/c/0/keyinfo"), Some(Route::KeyInfo { period: Some(Period(0)), .. })));
        for wrong in [
            "",
            "/",
            "/hls",
            "/hls/f/c/key",
            "/hls/f/c/01/key",
            "/hls/f/c/-1/key",
            "/hls/f/c/+1/key",
            "/hls//c/1/key",
            "/hls/f/c/18446744073709551616/key",
            "/hls/f/c/1/key/",
            "/hls/f%2Fx/c/1/key",
            "/hls/../c/1/key",
            "/v2/keys",
            "/v1/",
            "/v1//keys",
            "/v1/../health",
            "/v1/keys/%2e%2e",
            "/health/",
            "/HEALTH",
            "v1/keys",
        ] {
            assert_eq!(Route::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_releases_something_needs_a_receipt() {
        for (path, receipt_needed) in [
            ("/v1/keys", false),
            ("/v1/keys/film-7", false),
            ("/v1/keys/film-7/encrypt", true),
            ("/v1/keys/film-7/media-keys/1080p/0", true),
            ("/v1/decrypt", true),
            ("/v1/status", false),
        ] {
            assert_eq!(Route::parse(path), Some(Route::Api { receipt_needed }), "{path}");
        }
    }
}
