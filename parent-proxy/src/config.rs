//! What the proxy is told to do: one TOML file, no unknown keys, nothing secret needed.

mod credentials;
mod sections;
mod text;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use thiserror::Error;
use transport::Endpoint;

pub use credentials::CredentialsConfig;
pub use sections::{
    AdminConfig, EgressConfig, HostConfig, PolicyConfig, RelayConfig, StoreConfig, Target, TargetError,
};

/// The whole configuration. A section that is absent is a service that does not run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the enclave listens for clients.
    pub enclave: Endpoint,
    /// How long connections may go on after SIGTERM.
    #[serde(default = "sections::drain", deserialize_with = "text::duration")]
    pub drain: Duration,
    /// Clients to enclave.
    pub relay: Option<RelayConfig>,
    /// Enclave to the world.
    pub egress: Option<EgressConfig>,
    /// The host protocol; needs `store`.
    pub host: Option<HostConfig>,
    /// The log on disk.
    pub store: Option<StoreConfig>,
    /// Where AWS credentials come from.
    pub credentials: Option<CredentialsConfig>,
    /// Where signed policies lie.
    pub policy: Option<PolicyConfig>,
    /// Health and metrics.
    pub admin: Option<AdminConfig>,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text is not a configuration; the message shows the line.
    #[error("{origin}: {problem}")]
    Malformed {
        /// The file, or a word for where the text came from.
        origin: String,
        /// What is wrong, with the line.
        problem: String,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a text; `origin` says in errors where it came from.
    ///
    /// # Errors
    /// [`ConfigError::Malformed`].
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let malformed = |problem: String| ConfigError::Malformed { origin: origin.to_owned(), problem };
        let config: Self = toml::from_str(text).map_err(|error| malformed(error.to_string()))?;
        config.check().map_err(|problem| malformed(problem.to_owned()))?;
        Ok(config)
    }

    /// What no single value can be blamed for.
    fn check(&self) -> Result<(), &'static str> {
        match (&self.host, &self.store) {
            (Some(_), None) => return Err("[host] needs a [store] to keep the log in"),
            (None, Some(_)) => return Err("[store] is of no use without [host]"),
            _ => {}
        }
        if self.host.is_none() && (self.credentials.is_some() || self.policy.is_some()) {
            return Err("[credentials] and [policy] are handed out by [host], which is missing");
        }
        if self.store.as_ref().is_some_and(|store| store.archive_after.is_some() && store.archive.is_none()) {
            return Err("store.archive_after needs a store.archive to move segments to");
        }
        if self.store.as_ref().is_some_and(|store| store.pack_after.is_some() && store.segment_size > 2 << 30) {
            return Err("store.pack_after needs a store.segment_size of at most 2GiB");
        }
        if self.store.as_ref().is_some_and(|store| store.archive.as_ref() == Some(&store.directory)) {
            return Err("store.archive is another directory than store.directory");
        }
        if self.relay.is_none() && self.egress.is_none() && self.host.is_none() {
            return Err("none of [relay], [egress] and [host] is there: nothing to do");
        }
        if self.relay.as_ref().is_some_and(|relay| relay.listen.is_empty()) {
            return Err("relay.listen names no endpoint");
        }
        Ok(())
    }

    /// Names of the settings that differ from `other` and are read at start only.
    pub fn needing_restart(&self, other: &Self) -> Vec<&'static str> {
        let mut changed = Vec::new();
        let mut differs = |name, same: bool| {
            if !same {
                changed.push(name);
            }
        };
        fn on<T, V: PartialEq>(a: Option<&T>, b: Option<&T>, of: impl Fn(&T) -> V) -> bool {
            a.map(&of) == b.map(&of)
        }
        differs("drain", self.drain == other.drain);
        differs("relay.listen", on(self.relay.as_ref(), other.relay.as_ref(), |relay| relay.listen.clone()));
        differs("egress.listen", on(self.egress.as_ref(), other.egress.as_ref(), |egress| egress.listen.clone()));
        differs("host", self.host == other.host);
        differs("store", self.store == other.store);
        differs("credentials", self.credentials == other.credentials);
        differs("admin", self.admin == other.admin);
        differs("policy", self.policy.is_some() == other.policy.is_some());
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
enclave = "vsock:16:5000"
drain = "20s"

[relay]
listen = ["tcp:0.0.0.0:8443", "unix:/run/transcode-confidential/relay.sock"]
max_connections = 4096
max_per_client = 512
connect_timeout = "3s"
idle_timeout = "5m"
linger = "30s"
stall_timeout = "30s"

[egress]
listen = "vsock:any:9002"
allow = ["kms.eu-central-1.amazonaws.com:443"]
max_connections = 256
connect_timeout = "3s"
idle_timeout = "60s"

[egress.resolve]
"kms.eu-central-1.amazonaws.com:443" = "tcp:127.0.0.1:4443"

[host]
listen = "vsock:any:9001"
session_timeout = "30s"
frame_timeout = "10s"

[store]
directory = "/var/lib/transcode-confidential/log"
segment_size = "64MiB"
segment_age = "1h"
reserve = "8MiB"

[credentials]
source = "imds"

[policy]
path = "/etc/transcode-confidential/policy"

[admin]
listen = "tcp:127.0.0.1:9100"
"#;

    fn problem(text: &str) -> String {
        Config::parse(text, "proxy.toml").unwrap_err().to_string()
    }

    #[test]
    fn every_setting_is_read_and_the_defaults_are_those_of_the_reference() {
        let full = Config::parse(FULL, "proxy.toml").unwrap();
        assert_eq!(full.store.as_ref().unwrap().segment_size, 64 * 1024 * 1024);
        assert_eq!(full.relay.as_ref().unwrap().idle_timeout, Duration::from_secs(300));
        let short: String = FULL
            .lines()
            .filter(|line| !["max", "drain", "segment", "reserve"].iter().any(|word| line.starts_with(word)))
            .filter(|line| !line.contains("timeout") && !line.starts_with("linger"))
            .fold(String::new(), |text, line| text + line + "\n");
        let mut short = Config::parse(&short, "proxy.toml").unwrap();
        short.relay.as_mut().unwrap().max_per_client = full.relay.as_ref().unwrap().max_per_client;
        assert_eq!(short, full);
    }

    #[test]
    fn an_error_points_at_its_line() {
        for (from, to, expected) in [
            ("max_per_client = 512", "max_per_clients = 512", "line 8"),
            ("\"5m\"", "\"5 fortnights\"", "line 10"),
            ("vsock:16:5000", "vsock:5000", "line 2"),
            ("amazonaws.com:443\"]", "amazonaws.com\"]", "line 16"),
            ("tcp:127.0.0.1:9100", "tcp:0.0.0.0:9100", "line 42"),
            ("\"64MiB\"", "\"1KiB\"", "line 31"),
            ("\"imds\"", "\"aether\"", "line 36"),
        ] {
            assert!(FULL.contains(from));
            let text = problem(&FULL.replace(from, to));
            assert!(text.starts_with("proxy.toml: ") && text.contains(expected), "{to}: {text}");
        }
    }

    #[test]
    fn sections_that_need_each_other_are_asked_for() {
        assert!(problem("enclave = \"vsock:16:5000\"").contains("nothing to do"));
        assert!(problem("enclave = \"vsock:16:5000\"\n[host]\nlisten = \"unix:/h\"").contains("[store]"));
        let old = |more: &str| FULL.replace("reserve = \"8MiB\"", more);
        assert!(problem(&old("archive_after = \"30d\"")).contains("store.archive"));
        assert!(problem(&old("archive = \"/var/lib/transcode-confidential/log\"")).contains("another directory"));
        let stored = Config::parse(&old("pack_after = \"1d\"\narchive = \"/a\"\narchive_after = \"30d\""), "x");
        assert_eq!(stored.unwrap().store.unwrap().pack_after, Some(Duration::from_secs(86_400)));
        assert!(problem("enclave = \"unix:/e\"\n[relay]\nlisten = []").contains("relay.listen"));
    }

    #[test]
    fn a_static_secret_cannot_be_printed() {
        let text = FULL.replace(
            "source = \"imds\"",
            "source = \"static\"\naccess_key_id = \"AKIDEXAMPLE\"\nsecret_access_key = \"s3cr3t\"",
        );
        let printed = format!("{:?}", Config::parse(&text, "proxy.toml").unwrap());
        assert!(!printed.contains("s3cr3t"), "{printed}");
    }

    #[test]
    fn what_a_reload_cannot_change_is_named() {
        let old = Config::parse(FULL, "proxy.toml").unwrap();
        let new = FULL.replace("max_connections = 4096", "max_connections = 5").replace("64MiB", "32MiB");
        let new = Config::parse(&new.replace("0.0.0.0:8443", "0.0.0.0:8444"), "proxy.toml").unwrap();
        assert_eq!(old.needing_restart(&new), ["relay.listen", "store"]);
        assert!(old.needing_restart(&old).is_empty());
    }
}
