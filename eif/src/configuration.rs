//! What is wrong with a measured configuration, told before it is measured, each time with its line.

use std::{fmt, sync::Arc};

use enclave_app::{
    config::{Config, ConfigError},
    service::tls::Channel,
};
use transcode_confidential::time::SystemClock;
use transport::{Endpoint, VSOCK_ANY_CID};

/// A mistake and where it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Counted from 1; none where something is missing from the whole file.
    pub(crate) line: Option<usize>,
    /// What is wrong.
    pub(crate) what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Reads a configuration as the enclave will, and asks of it what only an image needs: endpoints on vsock, a parent that is one
/// machine, a certificate authority that can be used.
pub(crate) fn check(text: &str) -> Result<Config, Vec<Mistake>> {
    let config = Config::from_toml(text).map_err(|error| vec![refused(text, &error)])?;
    let mut mistakes = Vec::new();
    let mut mistake = |section, key, what: String| {
        mistakes.push(Mistake { line: line_of(text, section, key), what: format!("{key}: {what}") });
    };
    let parent = |endpoint: &Endpoint| match endpoint {
        Endpoint::Vsock { cid, .. } if *cid != VSOCK_ANY_CID => Some(*cid),
        _ => None,
    };
    let (host, egress) = (parent(&config.parent.host), parent(&config.parent.egress));
    for (key, cid) in [("host", host), ("egress", egress)] {
        if cid.is_none() {
            mistake("parent", key, "an image reaches its parent on vsock alone: vsock:3:PORT on EC2".to_owned());
        }
    }
    if let (Some(host), Some(egress)) = (host, egress)
        && host != egress
    {
        mistake("parent", "egress", format!("CID {egress} is another machine than the host service's CID {host}"));
    }
    if !matches!(config.parent.listen, Endpoint::Vsock { cid: VSOCK_ANY_CID, .. }) {
        mistake("parent", "listen", "an image listens on vsock alone: vsock:any:PORT".to_owned());
    }
    if let Err(error) = Channel::new(&config.client_ca, Arc::new(SystemClock)) {
        mistake("", "client_ca", error.to_string());
    }
    if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
}

/// What the enclave's own reader says, with the line that it does not know.
fn refused(text: &str, error: &ConfigError) -> Mistake {
    let place = match error {
        ConfigError::Toml(error) => {
            let line = error.span().map(|span| 1 + text.get(..span.start).unwrap_or_default().matches('\n').count());
            return Mistake { line, what: error.message().to_owned() };
        }
        ConfigError::Predecessor { label, .. } | ConfigError::Register { label, .. } => {
            let is_its = |line: &str| line.contains(label) && line.trim_start().starts_with("label");
            (1..).zip(text.lines()).find_map(|(number, line)| is_its(line).then_some(number))
        }
        ConfigError::KeyDefaults(error) => {
            let said = error.to_string();
            let named = ["max_age_secs", "max_uses"].into_iter().find(|key| said.contains(key));
            named.and_then(|key| line_of(text, "key_defaults", key)).or_else(|| section(text, "key_defaults"))
        }
        ConfigError::Deployment => line_of(text, "", "deployment"),
        ConfigError::ZeroLimit(name) => line_of(text, "limits", name).or_else(|| line_of(text, "log", name)),
        _ => None,
    };
    Mistake { line: place, what: error.to_string() }
}

/// The line of a key in a section; the empty section is the top of the file.
fn line_of(text: &str, wanted: &str, key: &str) -> Option<usize> {
    let mut current = "";
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.starts_with('[') {
            current = line.trim_matches(['[', ']']);
        } else if current == wanted && line.split('=').next().map(str::trim) == Some(key) {
            return Some(number);
        }
    }
    None
}

fn section(text: &str, name: &str) -> Option<usize> {
    (1..).zip(text.lines()).find_map(|(number, line)| (line.trim().trim_matches(['[', ']']) == name).then_some(number))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration that an image may have; its CA is one that nobody uses.
    pub(crate) const GOOD: &str = include_str!("../testdata/enclave.toml");

    fn mistakes(from: &str, to: &str) -> Vec<String> {
        assert!(GOOD.contains(from), "{from}");
        check(&GOOD.replacen(from, to, 1)).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_configuration_is_good() {
        check(GOOD).unwrap();
    }

    #[test]
    fn every_mistake_points_at_its_line() {
        let at = |from: &str| 1 + GOOD.split(from).next().unwrap().matches('\n').count();
        for (from, to, says) in [
            ("deployment = \"studio\"", "deployment = \"\"", "deployment"),
            ("deployment = \"studio\"", "deployments = \"studio\"", "deployments"),
            ("key/1234abcd-12ab-34cd-56ef-1234567890ab", "alias/films", "alias"),
            ("vsock:3:5001", "vsock:3", "vsock"),
            ("vsock:3:5001", "unix:/run/host.sock", "host: an image reaches its parent on vsock alone"),
            ("vsock:3:5002", "vsock:4:5002", "egress: CID 4 is another machine"),
            ("vsock:any:5000", "tcp:0.0.0.0:5000", "listen: an image listens on vsock alone"),
            ("max_uses = 1048576", "max_uses = 0", "key_defaults"),
            ("connections = 4096", "connections = 0", "connections must not be 0"),
            ("snapshot_hours = 24", "snapshot_hours = 0", "snapshot_hours must not be 0"),
            ("snapshot_hours = 24", "snapshot_hours = \"daily\"", "expected"),
            ("label = \"1.0.0\"\npcr0 = \"1", "label = \"1.0.0\"\npcr0 = \"x", "predecessor"),
        ] {
            let found = mistakes(from, to);
            let line = format!("line {}: ", at(from));
            assert!(found[0].starts_with(&line) && found[0].contains(says), "{to}: {found:?}, expected {line}{says}");
        }
    }

    #[test]
    fn the_example_is_good_once_it_has_a_certificate_and_the_defaults_in_its_comments_are_the_defaults() {
        let certificate = GOOD.split("\"\"\"").nth(1).unwrap().trim_start();
        let (before, rest) = include_str!("../enclave.example.toml").split_once("-----BEGIN").unwrap();
        let (_, after) = rest.split_once("END CERTIFICATE-----\n").unwrap();
        let example = format!("{before}{certificate}{after}");
        let (stated, defaults) = example.split_once("# The defaults:\n").unwrap();
        let defaults = defaults.lines().filter(|line| !line.ends_with(':')).map(|line| line.trim_start_matches("# "));
        let spelled_out = format!("{stated}{}", defaults.collect::<Vec<_>>().join("\n"));
        assert!(spelled_out.contains("\nsnapshot_hours"), "{spelled_out}");
        let read = |text: &str| format!("{:?}", check(text).unwrap());
        assert_eq!(read(&spelled_out), read(&example));
    }

    #[test]
    fn a_certificate_authority_that_is_none_is_found_out() {
        let found = mistakes("-----BEGIN CERTIFICATE-----\n", "");
        assert!(found[0].contains("client_ca"), "{found:?}");
    }
}
