use std::{fmt, io, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::{
    listener::{BindError, Listener},
    stream::Stream,
};

mod connect;

/// The context id that stands for every context when listening on vsock; written `any`.
pub const VSOCK_ANY_CID: u32 = u32::MAX;

/// Where something listens, as text and as a value. The text form has exactly one value and the value one text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// `vsock:CID:PORT`. To listen for every context, the CID is `any`.
    Vsock {
        /// Context id; no identity.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `unix:PATH:PORT`, vsock over a Unix socket, as Firecracker and vhost-device-vsock offer it. To connect is to reach
    /// `PATH`, to say `CONNECT PORT` and to hear `OK`; to listen is to bind `PATH_PORT`.
    Hybrid {
        /// The socket of the virtual machine monitor.
        path: PathBuf,
        /// Port inside the guest, or the one that the guest connects to.
        port: u32,
    },
    /// `tcp:HOST:PORT`; the host is a name, an IPv4 address or a bracketed IPv6 address.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port; 0 lets the system choose when listening.
        port: u16,
    },
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not an endpoint: {problem}")]
pub struct EndpointError {
    text: String,
    problem: &'static str,
}

/// Why an endpoint could not be reached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answered in time.
    #[error("{endpoint} did not answer within {within:?}")]
    TimedOut {
        /// The endpoint.
        endpoint: Endpoint,
        /// The time that it was given.
        within: Duration,
    },
    /// The system refused.
    #[error("cannot connect to {endpoint}: {source}")]
    Io {
        /// The endpoint.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// The monitor's socket answered `CONNECT` with something other than `OK`.
    #[error("{endpoint} did not accept CONNECT")]
    NotAccepted {
        /// The endpoint.
        endpoint: Endpoint,
    },
}

impl Endpoint {
    /// Connects within `timeout`, name resolution and handshake of hybrid vsock included. Every address of a TCP name is
    /// tried.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, timeout: Duration) -> Result<Stream, ConnectError> {
        match tokio::time::timeout(timeout, connect::connect(self)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { endpoint: self.clone(), within: timeout }),
        }
    }

    /// Listens. A Unix socket is made with mode 0600; a socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(&self) -> Result<Listener, BindError> {
        Listener::bind(self).await
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let refuse = |problem| EndpointError { text: text.to_owned(), problem };
        let (scheme, rest) = text.split_once(':').ok_or_else(|| refuse("it starts with vsock:, unix: or tcp:"))?;
        match scheme {
            "vsock" => {
                let (cid, port) = rest.split_once(':').ok_or_else(|| refuse("write vsock:CID:PORT"))?;
                let cid = if cid == "any" { Some(VSOCK_ANY_CID) } else { decimal(cid).filter(|&c| c != VSOCK_ANY_CID) };
                let cid = cid.ok_or_else(|| refuse("the CID is a number or any"))?;
                let port = decimal(port).ok_or_else(|| refuse("the port is a number"))?;
                Ok(Self::Vsock { cid, port })
            }
            "unix" => {
                let (path, port) = match rest.rsplit_once(':') {
                    Some((path, port)) => match decimal(port) {
                        Some(port) => (path, Some(port)),
                        None => (rest, None),
                    },
                    None => (rest, None),
                };
                if path.is_empty() || path.contains('\0') {
                    return Err(refuse("the path is missing or holds a zero byte"));
                }
                Ok(match port {
                    Some(port) => Self::Hybrid { path: path.into(), port },
                    None => Self::Unix(path.into()),
                })
            }
            "tcp" => {
                let (host, port) = rest.rsplit_once(':').ok_or_else(|| refuse("write tcp:HOST:PORT"))?;
                let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
                    Some(address) if address.contains(':') => address,
                    Some(_) => return Err(refuse("only an IPv6 address stands in brackets")),
                    None if host.contains(':') => return Err(refuse("an IPv6 address stands in brackets")),
                    None => host,
                };
                if host.is_empty() || host.contains(['/', '[', ']']) || host.contains(char::is_whitespace) {
                    return Err(refuse("the host is a name or an address"));
                }
                let port = decimal(port).and_then(|port| u16::try_from(port).ok());
                let port = port.ok_or_else(|| refuse("the port is a number up to 65535"))?;
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            _ => Err(refuse("it starts with vsock:, unix: or tcp:")),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid: VSOCK_ANY_CID, port } => write!(f, "vsock:any:{port}"),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Hybrid { path, port } => write!(f, "unix:{}:{port}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number without sign or leading zeros.
fn decimal(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_has_one_text() {
        for (text, endpoint) in [
            ("vsock:16:5000", Endpoint::Vsock { cid: 16, port: 5000 }),
            ("vsock:any:9001", Endpoint::Vsock { cid: VSOCK_ANY_CID, port: 9001 }),
            ("unix:/run/tc.sock", Endpoint::Unix("/run/tc.sock".into())),
            ("unix:/run/a:b", Endpoint::Unix("/run/a:b".into())),
            ("unix:/run/vm.sock:5000", Endpoint::Hybrid { path: "/run/vm.sock".into(), port: 5000 }),
            ("tcp:kms.example:443", Endpoint::Tcp { host: "kms.example".into(), port: 443 }),
            ("tcp:[::1]:0", Endpoint::Tcp { host: "::1".into(), port: 0 }),
        ] {
            assert_eq!(text.parse(), Ok(endpoint.clone()));
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn a_text_that_leaves_a_doubt_is_refused() {
        for text in [
            "",
            "vsock",
            "vsock:16",
            "vsock:x:1",
            "vsock:1:x",
            "vsock:4294967295:1",
            "vsock:-1:1",
            "unix:",
            "unix::5",
            "tcp:host",
            "tcp::80",
            "tcp:::1:80",
            "tcp:[host]:80",
            "tcp:host:65536",
            "tcp:host:080",
            "tcp:a b:1",
            "http://host",
            "tcp:h/p:1",
            "tcp:host:+80",
            "/run/x",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_parses_prints_the_same_text(text in "(vsock|unix|tcp):[a-z0-9:./\\[\\]]{0,24}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string(), text);
            }
        }
    }
}
