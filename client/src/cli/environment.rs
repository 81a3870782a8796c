//! Where options come from: the command line, then the environment, then the configuration file.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::exit::Failure;

/// What the process was started with, beside its arguments.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) server: Option<String>,
    pub(super) identity: Option<PathBuf>,
    pub(super) measurements: Vec<PathBuf>,
    config: Option<PathBuf>,
    config_home: Option<PathBuf>,
    state_home: Option<PathBuf>,
    home: Option<PathBuf>,
}

/// Directory of this program within those that the XDG base directory specification names.
const OURS: &str = "transcode-confidential";

/// `client.toml`. Relative paths in it are relative to the directory that it lies in.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) server: Option<String>,
    pub(super) identity: Option<PathBuf>,
    #[serde(default)]
    pub(super) measurements: Vec<PathBuf>,
    pub(super) state: Option<PathBuf>,
}

impl Environment {
    /// That of this process. An empty variable counts as unset.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is main, in a library so that other binaries can be the command line"
    )]
    pub(super) fn of_process() -> Self {
        let var = |name| env::var_os(name).filter(|value| !value.is_empty());
        let path = |name| var(name).map(PathBuf::from);
        // The XDG specification has relative paths ignored.
        let absolute = |name| path(name).filter(|path| path.is_absolute());
        Self {
            server: var("CONFIDENTIAL_SERVER").and_then(|value| value.into_string().ok()),
            identity: path("CONFIDENTIAL_IDENTITY"),
            measurements: var("CONFIDENTIAL_MEASUREMENTS")
                .map(|value| env::split_paths(&value).collect())
                .unwrap_or_default(),
            config: path("CONFIDENTIAL_CONFIG"),
            config_home: absolute("XDG_CONFIG_HOME"),
            state_home: absolute("XDG_STATE_HOME"),
            home: absolute("HOME"),
        }
    }

    /// The configuration file. One that is named must be there; the default one need not.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let default = || {
            let home = self.config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")))?;
            Some(home.join(OURS).join("client.toml"))
        };
        let Some(path) = self.config.clone().or_else(default) else { return Ok(Config::default()) };
        match std::fs::read_to_string(&path) {
            Ok(text) => Config::read(&text, path.parent().unwrap_or(Path::new("."))).map_err(|error| {
                let problem = error.to_string();
                Failure::file(&path, &problem.trim_end())
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.config.is_none() => Ok(Config::default()),
            Err(error) => Err(Failure::file(&path, &error)),
        }
    }

    /// The default state directory.
    pub(super) fn state(&self) -> Option<PathBuf> {
        let home = self.state_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/state")))?;
        Some(home.join(OURS))
    }
}

impl Config {
    fn read(text: &str, dir: &Path) -> Result<Self, toml::de::Error> {
        let Self { server, identity, measurements, state } = toml::from_str(text)?;
        Ok(Self {
            server,
            identity: identity.map(|path| dir.join(path)),
            measurements: measurements.into_iter().map(|path| dir.join(path)).collect(),
            state: state.map(|path| dir.join(path)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let text = "server = 'tcp:enclave:9443'\nidentity = 'me.pem'\nmeasurements = ['/a.json', 'b.json']\n";
        let config = Config::read(text, Path::new("/etc/tc")).unwrap();
        assert_eq!(config.identity, Some("/etc/tc/me.pem".into()));
        assert_eq!(config.measurements, [PathBuf::from("/a.json"), "/etc/tc/b.json".into()]);
        assert_eq!(config.state, None);
    }

    #[test]
    fn a_setting_that_nobody_knows_is_refused() {
        let error = Config::read("sever = 'tcp:enclave:9443'", Path::new("/")).unwrap_err();
        assert!(error.to_string().contains("sever"), "{error}");
    }

    #[test]
    fn a_file_that_was_named_must_be_there_and_the_default_one_need_not() {
        let dir = tempfile::tempdir().unwrap();
        let named = Environment { config: Some(dir.path().join("x.toml")), ..Environment::default() };
        assert_eq!(named.config().unwrap_err().exit.code(), 3);
        let default = Environment { home: Some(dir.path().into()), ..Environment::default() };
        assert_eq!(default.config().unwrap(), Config::default());
        assert_eq!(default.state(), Some(dir.path().join(".local/state/transcode-confidential")));
    }
}
