use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    num::NonZeroUsize,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error as _};
use thiserror::Error;
use transport::Endpoint;

use super::text;

/// `[relay]`: clients to enclave.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// Where clients connect to.
    pub listen: Vec<Endpoint>,
    /// Connections at the same time, over all listeners.
    #[serde(default = "relay_connections")]
    pub max_connections: usize,
    /// Connections at the same time from one IP address; no limit where absent.
    pub max_per_client: Option<NonZeroUsize>,
    /// How long the enclave may take to accept.
    #[serde(default = "connect_timeout", deserialize_with = "text::duration")]
    pub connect_timeout: Duration,
    /// A connection on which nothing moves for so long is closed.
    #[serde(default = "relay_idle", deserialize_with = "text::duration")]
    pub idle_timeout: Duration,
    /// The same, once one side has said that it sends nothing more.
    #[serde(default = "linger", deserialize_with = "text::duration")]
    pub linger: Duration,
    /// A connection whose receiver takes nothing for so long is closed.
    #[serde(default = "linger", deserialize_with = "text::duration")]
    pub stall_timeout: Duration,
}

/// `[egress]`: enclave to the world.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressConfig {
    /// Where the enclave connects to.
    pub listen: Endpoint,
    /// Names with ports that may be reached; exact, lower case.
    pub allow: BTreeSet<Target>,
    /// Development: where a name leads instead of where DNS says.
    #[serde(default)]
    pub resolve: BTreeMap<Target, Endpoint>,
    /// Connections at the same time.
    #[serde(default = "egress_connections")]
    pub max_connections: usize,
    /// How long one address may take to accept.
    #[serde(default = "connect_timeout", deserialize_with = "text::duration")]
    pub connect_timeout: Duration,
    /// A connection on which nothing moves for so long is closed.
    #[serde(default = "egress_idle", deserialize_with = "text::duration")]
    pub idle_timeout: Duration,
}

/// `[host]`: the host protocol.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Where the enclave connects to.
    pub listen: Endpoint,
    /// A session without a frame for so long is dead.
    #[serde(default = "session", deserialize_with = "text::duration")]
    pub session_timeout: Duration,
    /// How long one frame may take, in either direction.
    #[serde(default = "frame", deserialize_with = "text::duration")]
    pub frame_timeout: Duration,
}

/// `[store]`: the log on disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// A directory of its own.
    pub directory: PathBuf,
    /// A segment that has reached this size is closed, in bytes.
    #[serde(default = "segment_size", deserialize_with = "at_least_64_kib")]
    pub segment_size: u64,
    /// A segment that is this old is closed.
    #[serde(default = "segment_age", deserialize_with = "text::duration")]
    pub segment_age: Duration,
    /// Disk space kept aside for the last words of a full disk, in bytes; 0 for none.
    #[serde(default = "reserve", deserialize_with = "text::size")]
    pub reserve: u64,
    /// Whether the enclave is told where the newest snapshot is; without that it reads the whole log when it boots.
    #[serde(default = "yes")]
    pub offer_snapshots: bool,
    /// A closed segment whose last event is this old is packed; never where absent.
    #[serde(default, deserialize_with = "text::age")]
    pub pack_after: Option<Duration>,
    /// Another directory, on another file system for example, that older segments are moved to.
    pub archive: Option<PathBuf>,
    /// A closed segment whose last event is this old is moved to the archive; never where absent.
    #[serde(default, deserialize_with = "text::age")]
    pub archive_after: Option<Duration>,
}

/// `[policy]`: where signed policies lie.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// A policy document, or a directory of them.
    pub path: PathBuf,
    /// A restore document of the same authority, handed to an enclave that boots. It does nothing where the log is not the copy
    /// that it names.
    pub restore: Option<PathBuf>,
}

/// `[admin]`: health and metrics over plain HTTP, for this machine only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// A loopback address or a Unix socket.
    #[serde(deserialize_with = "local")]
    pub listen: Endpoint,
}

/// A name and a port: `kms.eu-central-1.amazonaws.com:443`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Host name or IPv4 address, lower case.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A text that is not `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected host:port, in lower case")]
pub struct TargetError;

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (host, port) = text.rsplit_once(':').ok_or(TargetError)?;
        let number: u16 = port.parse().map_err(|_| TargetError)?;
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
        let whole = !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed);
        // One text per target: no leading zeros, no sign.
        if !whole || number == 0 || number.to_string() != port {
            return Err(TargetError);
        }
        Ok(Self { host: host.to_owned(), port: number })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn at_least_64_kib<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = text::size(deserializer)?;
    if size < 64 * 1024 { Err(D::Error::custom("a segment has at least 64KiB")) } else { Ok(size) }
}

fn local<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
    let endpoint = Endpoint::deserialize(deserializer)?;
    let is_local = match &endpoint {
        Endpoint::Unix(_) => true,
        Endpoint::Tcp { host, .. } => host == "localhost" || host.parse().is_ok_and(|host: IpAddr| host.is_loopback()),
        _ => false,
    };
    if is_local {
        Ok(endpoint)
    } else {
        Err(D::Error::custom("the admin endpoint is a loopback address or a Unix socket"))
    }
}

pub(super) const fn drain() -> Duration {
    Duration::from_secs(20)
}

const fn yes() -> bool {
    true
}

const fn relay_connections() -> usize {
    4096
}

const fn egress_connections() -> usize {
    256
}

const fn connect_timeout() -> Duration {
    Duration::from_secs(3)
}

const fn relay_idle() -> Duration {
    Duration::from_secs(300)
}

const fn egress_idle() -> Duration {
    Duration::from_secs(60)
}

const fn linger() -> Duration {
    Duration::from_secs(30)
}

const fn session() -> Duration {
    Duration::from_secs(30)
}

const fn frame() -> Duration {
    Duration::from_secs(10)
}

const fn segment_size() -> u64 {
    64 << 20
}

const fn segment_age() -> Duration {
    Duration::from_secs(3600)
}

const fn reserve() -> u64 {
    8 << 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_one_text() {
        let target: Target = "kms.eu-central-1.amazonaws.com:443".parse().unwrap();
        assert_eq!(target.to_string(), "kms.eu-central-1.amazonaws.com:443");
        let long = format!("{}:443", "a".repeat(254));
        for bad in [
            "",
            "host",
            ":443",
            "host:",
            "host:0",
            "host:0443",
            "host:+443",
            "host:70000",
            "HOST:443",
            "a b:1",
            "a\0:1",
            &long,
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }
}
