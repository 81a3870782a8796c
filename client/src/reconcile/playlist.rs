use thiserror::Error;

/// A media playlist, as far as completeness is concerned: RFC 8216.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Playlist {
    /// Number of the first segment.
    pub media_sequence: u64,
    /// The segments, in order.
    pub segments: Vec<PlaylistSegment>,
    /// Whether it says that no more will follow.
    pub ended: bool,
}

/// One segment of a playlist.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaylistSegment {
    /// Where it is, as the playlist says.
    pub uri: String,
    /// Its duration, in seconds.
    pub duration: f64,
    /// Where its key is, as the playlist says; none where it is not encrypted by HLS.
    pub key_uri: Option<String>,
}

/// Why a text is no media playlist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlaylistError {
    /// The first line is not `#EXTM3U`.
    #[error("it does not start with #EXTM3U")]
    NoPlaylist,
    /// It lists other playlists.
    #[error("it is a multivariant playlist: give one of the media playlists that it lists")]
    Multivariant,
    /// A line that cannot be read.
    #[error("line {0} cannot be read")]
    Line(usize),
    /// More segments than anybody has.
    #[error("more than {SEGMENT_LIMIT} segments")]
    TooMany,
}

const SEGMENT_LIMIT: usize = 1_000_000;

impl PlaylistSegment {
    /// The period of its media key, where the key comes through a gateway: `.../<period>/key`.
    pub fn period(&self) -> Option<u64> {
        let path = self.key_uri.as_deref()?.split(['?', '#']).next()?;
        path.strip_suffix("/key")?.rsplit('/').next()?.parse().ok()
    }
}

impl Playlist {
    /// Reads a media playlist; tags that say nothing about completeness are passed over.
    ///
    /// # Errors
    /// [`PlaylistError`].
    pub fn parse(text: &str) -> Result<Self, PlaylistError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = text.lines().map(str::trim).enumerate();
        if lines.next().is_none_or(|(_, first)| first != "#EXTM3U") {
            return Err(PlaylistError::NoPlaylist);
        }
        let (mut playlist, mut duration, mut key_uri) = (Self::default(), None, None);
        for (number, line) in lines {
            let unreadable = || PlaylistError::Line(number + 1);
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            match tag {
                "" if line.is_empty() => {}
                "#EXT-X-STREAM-INF" | "#EXT-X-I-FRAME-STREAM-INF" => return Err(PlaylistError::Multivariant),
                "#EXT-X-MEDIA-SEQUENCE" => playlist.media_sequence = value.trim().parse().map_err(|_| unreadable())?,
                "#EXT-X-ENDLIST" => playlist.ended = true,
                "#EXT-X-KEY" => key_uri = attribute(value, "URI"),
                "#EXTINF" => {
                    let seconds: f64 =
                        value.split(',').next().unwrap_or_default().trim().parse().map_err(|_| unreadable())?;
                    duration = Some(seconds).filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
                    duration.ok_or_else(unreadable)?;
                }
                _ if line.starts_with('#') => {}
                _ => {
                    if playlist.segments.len() >= SEGMENT_LIMIT {
                        return Err(PlaylistError::TooMany);
                    }
                    // A segment without a duration is none.
                    let duration = duration.take().ok_or_else(unreadable)?;
                    let (uri, key_uri) = (line.to_owned(), key_uri.clone());
                    playlist.segments.push(PlaylistSegment { uri, duration, key_uri });
                }
            }
        }
        Ok(playlist)
    }

    /// How long all of it takes, in seconds.
    pub fn duration(&self) -> f64 {
        self.segments.iter().map(|segment| segment.duration).sum()
    }
}

/// A quoted attribute of an attribute list: RFC 8216 section 4.2. Quoted strings hold no quotes.
fn attribute(list: &str, name: &str) -> Option<String> {
    let mut rest = list;
    loop {
        let (key, behind) = rest.split_once('=')?;
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => behind.split_at(behind.find(',').unwrap_or(behind.len())),
        };
        if key.trim() == name {
            return Some(value.to_owned());
        }
        rest = behind.strip_prefix(',')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ffmpeg_writes_is_read() {
        let text = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n\
                    #EXT-X-KEY:METHOD=AES-128,URI=\"http://127.0.0.1/a=b,c/0/key\",IV=0x07\n#EXTINF:2.000000,\nseg7.ts\n\
                    #EXTINF:1.5,a title\nseg8.ts\n#EXT-X-KEY:METHOD=NONE\n#EXTINF:1,\r\nseg9.ts\n#EXT-X-ENDLIST\n";
        let playlist = Playlist::parse(text).unwrap();
        assert_eq!((playlist.media_sequence, playlist.segments.len(), playlist.ended), (7, 3, true));
        assert_eq!(playlist.segments[1].uri, "seg8.ts");
        assert_eq!(playlist.segments[1].key_uri.as_deref(), Some("http://127.0.0.1/a=b,c/0/key"));
        assert_eq!(playlist.segments[2].key_uri, None);
        assert!((playlist.duration() - 4.5).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_media_playlist_is_refused() {
        for (text, error) in [
            ("", PlaylistError::NoPlaylist),
            ("<html>", PlaylistError::NoPlaylist),
            ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\na.m3u8", PlaylistError::Multivariant),
            ("#EXTM3U\nseg.ts", PlaylistError::Line(2)),
            ("#EXTM3U\n:seg.ts", PlaylistError::Line(2)),
            ("#EXTM3U\n#EXTINF:nan,\nseg.ts", PlaylistError::Line(2)),
            ("#EXTM3U\n#EXTINF:-1,\nseg.ts", PlaylistError::Line(2)),
            ("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:x", PlaylistError::Line(2)),
        ] {
            assert_eq!(Playlist::parse(text), Err(error), "{text}");
        }
    }
}
