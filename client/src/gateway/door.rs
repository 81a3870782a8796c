use std::net::IpAddr;

use http::{Request, header::HOST};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use transcode_confidential::{
    entropy::{Entropy, EntropyError},
    ids::Digest,
};
use transport::Endpoint;
use zeroize::Zeroizing;

/// The secret part of a gateway's path on TCP.
pub struct Token(Zeroizing<String>);

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a token has 32 to 128 of A-Z a-z 0-9 - _")]
pub struct TokenError;

impl Token {
    /// 128 random bits.
    ///
    /// # Errors
    /// [`EntropyError`].
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = Zeroizing::new([0; 16]);
        entropy.fill(&mut *bytes)?;
        Ok(Self(Zeroizing::new(hex::encode(*bytes))))
    }

    /// Takes a text that somebody else drew.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn from_text(text: &str) -> Result<Self, TokenError> {
        let good = (32..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if good { Ok(Self(Zeroizing::new(text.to_owned()))) } else { Err(TokenError) }
    }

    /// The text, for the file that keeps it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What stands in playlists: it follows from the token, and the token does not follow from it.
    fn for_players(&self) -> Self {
        let input = Zeroizing::new(format!("transcode-confidential/gateway-players/v1\0{}", self.expose()));
        let digest = Digest::of(input.as_bytes()).to_string();
        Self(Zeroizing::new(digest.get(..32).unwrap_or(&digest).to_owned()))
    }

    fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(secret)")
    }
}

/// How somebody came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entrance {
    /// With the token, or through the socket.
    Tools,
    /// With what stands in playlists.
    Players,
}

/// Lets requests of one listener in, or not.
pub(super) enum Door {
    /// Whoever can open the socket may come in.
    Unix,
    /// The token must be in the path, and the request must be meant for us: a name in `Host` that a browser was lured to is
    /// not ours.
    Tcp { tools: Token, players: Token, authority: String, hosts: Vec<String> },
}

/// Where packagers and players are sent.
pub(super) struct Urls {
    pub(super) tools: Zeroizing<String>,
    pub(super) players: String,
}

impl Door {
    pub(super) fn of(endpoint: &Endpoint, token: &Token) -> Self {
        let Endpoint::Tcp { host, port } = endpoint else { return Self::Unix };
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authority = format!("{bracketed}:{port}");
        let hosts = [&*bracketed, "localhost", "127.0.0.1", "[::1]"].map(|host| format!("{host}:{port}")).to_vec();
        Self::Tcp { tools: Token(token.0.clone()), players: token.for_players(), authority, hosts }
    }

    /// Who comes in, and for which path.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Option<(Entrance, String)> {
        let path = request.uri().path();
        let Self::Tcp { tools, players, hosts, .. } = self else { return Some((Entrance::Tools, path.to_owned())) };
        let mut given = request.headers().get_all(HOST).iter();
        let (host, None) = (given.next()?.to_str().ok()?, given.next()) else { return None };
        // Where a request line has an authority, it is the same one.
        let stated = request.uri().authority().map_or(host, |authority| authority.as_str());
        if stated != host || !hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host)) {
            return None;
        }
        let (token, rest) = path.strip_prefix('/')?.split_once('/')?;
        let entrance = match (tools.is(token), players.is(token)) {
            (true, _) => Entrance::Tools,
            (_, true) => Entrance::Players,
            _ => return None,
        };
        Some((entrance, format!("/{rest}")))
    }

    /// The base URL, with the token.
    pub(super) fn url(&self, endpoint: &Endpoint) -> String {
        match self {
            Self::Unix => endpoint.to_string(),
            Self::Tcp { tools, authority, .. } => format!("http://{authority}/{}", tools.expose()),
        }
    }

    pub(super) fn urls(&self) -> Option<Urls> {
        let Self::Tcp { tools, players, authority, .. } = self else { return None };
        let url = |token: &Token| format!("http://{authority}/{}", token.expose());
        Some(Urls { tools: Zeroizing::new(url(tools)), players: url(players) })
    }
}

/// Whether nobody outside of this machine can reach it.
pub(super) fn is_local(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Unix(_) => true,
        Endpoint::Tcp { host, .. } => host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use transcode_confidential::entropy::OsEntropy;

    use super::*;

    fn door() -> (Door, Token) {
        let token = Token::generate(&OsEntropy).unwrap();
        (Door::of(&"tcp:127.0.0.1:8080".parse().unwrap(), &token), token)
    }

    fn request(path: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::get(path);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn the_token_and_our_own_name_let_in_and_nothing_else_does() {
        let (door, token) = door();
        let good = format!("/{}/v1/keys", token.expose());
        for host in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080"] {
            assert_eq!(door.admit(&request(&good, &[host])), Some((Entrance::Tools, "/v1/keys".into())), "{host}");
        }
        for hosts in
            [&[][..], &["evil.test:8080"], &["127.0.0.1"], &["127.0.0.1:80"], &["127.0.0.1:8080", "127.0.0.1:8080"]]
        {
            assert_eq!(door.admit(&request(&good, hosts)), None, "{hosts:?}");
        }
        let shorter = &token.expose()[1..];
        for path in ["/v1/keys", "//v1/keys", &format!("/{shorter}/v1/keys"), &format!("/{}", token.expose())] {
            assert_eq!(door.admit(&request(path, &["127.0.0.1:8080"])), None, "{path}");
        }
        let other = format!("http://evil.test:8080{good}");
        assert_eq!(door.admit(&request(&other, &["127.0.0.1:8080"])), None);
    }

    #[test]
    fn what_stands_in_playlists_is_another_entrance() {
        let (door, token) = door();
        let urls = door.urls().unwrap();
        assert!(!urls.players.contains(token.expose()));
        let path = urls.players.strip_prefix("http://127.0.0.1:8080").unwrap().to_owned() + "/hls/k/c/1/key";
        let admitted = door.admit(&request(&path, &["127.0.0.1:8080"]));
        assert_eq!(admitted, Some((Entrance::Players, "/hls/k/c/1/key".into())));
    }

    #[test]
    fn only_this_machine_is_local() {
        for (endpoint, local) in [
            ("unix:/run/gateway.sock", true),
            ("tcp:127.0.0.1:0", true),
            ("tcp:127.8.8.8:1", true),
            ("tcp:[::1]:0", true),
            ("tcp:0.0.0.0:0", false),
            ("tcp:[::]:0", false),
            ("tcp:10.0.0.1:0", false),
            ("tcp:localhost:0", false),
            ("vsock:any:1", false),
        ] {
            assert_eq!(is_local(&endpoint.parse().unwrap()), local, "{endpoint}");
        }
    }

    #[test]
    fn a_token_cannot_be_short_strange_or_printed() {
        for wrong in ["", "short", &"a".repeat(31), &"a".repeat(129), &format!("{}/", "a".repeat(32))] {
            assert!(Token::from_text(wrong).is_err(), "{wrong}");
        }
        let token = Token::from_text(&"a".repeat(32)).unwrap();
        assert_eq!(format!("{token:?}"), "Token(secret)");
        assert!(token.is(&"a".repeat(32)) && !token.is(&"a".repeat(31)) && !token.is(&"b".repeat(32)));
    }
}
