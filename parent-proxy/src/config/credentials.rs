use std::{fmt, path::PathBuf};

use serde::{Deserialize, Deserializer};
use transport::Endpoint;
use zeroize::Zeroizing;

/// `[credentials]`: where AWS credentials come from.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "source", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum CredentialsConfig {
    /// The instance's role, from the instance metadata service, version 2.
    Imds {
        /// Where the service answers plain HTTP.
        #[serde(default = "imds")]
        endpoint: Endpoint,
    },
    /// A file in the format of `credential_process`, read again whenever fresh credentials are due.
    File {
        /// The file.
        path: PathBuf,
    },
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN` of the process.
    Environment {},
    /// Development: here in the configuration.
    Static {
        /// Access key id.
        access_key_id: String,
        /// Secret access key.
        #[serde(deserialize_with = "secret")]
        secret_access_key: Zeroizing<String>,
        /// Session token; empty for long-lived keys.
        #[serde(default, deserialize_with = "secret")]
        session_token: Zeroizing<String>,
    },
}

impl fmt::Debug for CredentialsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Imds { endpoint } => write!(f, "Imds({endpoint})"),
            Self::File { path } => write!(f, "File({})", path.display()),
            Self::Environment {} => f.write_str("Environment"),
            Self::Static { .. } => f.write_str("Static(secret)"),
        }
    }
}

fn imds() -> Endpoint {
    Endpoint::Tcp { host: "169.254.169.254".to_owned(), port: 80 }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}
