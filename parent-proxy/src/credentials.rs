//! AWS credentials for the enclave: fetched, kept while they are good, told with the time that they have left. Never logged.

mod imds;
mod parse;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::timeout};
use tracing::warn;
use transcode_confidential::{
    protocol::host::Credentials as Told,
    time::{Clock, Timestamp},
};
use zeroize::Zeroizing;

use crate::config::CredentialsConfig;
use parse::Parsed;

/// How long one attempt to fetch may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Credentials with less time left are renewed, where that is possible.
const AHEAD: Duration = Duration::from_secs(10 * 60);
/// Credentials with less time left are not handed out.
const LEAST: Duration = Duration::from_secs(15);
/// After a failed attempt the next one waits so long, while what is there is still good.
const RETRY: Duration = Duration::from_secs(5);
/// What is told of credentials that do not expire.
const UNLIMITED: Duration = Duration::from_secs(3600);
/// How long credentials are kept before they are looked up again: whoever asks again so late may have met a refusal.
const KEPT: Duration = Duration::from_secs(60);

/// Looks up a variable of the process's environment.
pub type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Where credentials come from, and those that are there.
pub(crate) struct Credentials {
    source: CredentialsConfig,
    variables: Variables,
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    credentials: Option<(Parsed, Timestamp)>,
    failed: Option<Timestamp>,
}

/// Why there are no credentials. Says nothing of what was found.
#[derive(Debug, thiserror::Error)]
enum CredentialsError {
    #[error("no answer in time")]
    TimedOut,
    #[error("cannot read the file: {0}")]
    File(std::io::Error),
    #[error("the variable {0} is not set")]
    Variable(&'static str),
    #[error("the metadata service: {0}")]
    Imds(#[from] imds::ImdsError),
    #[error(transparent)]
    Parse(#[from] parse::ParseError),
    #[error("they have expired")]
    Expired,
}

impl Credentials {
    pub(crate) fn new(source: CredentialsConfig, variables: Variables, clock: Arc<dyn Clock>) -> Self {
        Self { source, variables, clock, kept: Mutex::default() }
    }

    /// Credentials that have some time left; `None` where there are none.
    pub(crate) async fn current(&self) -> Option<Told> {
        // One fetch at a time: whoever waits here finds what the one before fetched.
        let mut kept = self.kept.lock().await;
        let now = self.clock.now();
        if kept.is_due(now) {
            match timeout(PATIENCE, self.fetch()).await.unwrap_or(Err(CredentialsError::TimedOut)) {
                Ok(fresh) => *kept = Kept { credentials: Some((fresh, now)), failed: None },
                Err(error) => {
                    warn!(%error, source = ?self.source, "credentials cannot be fetched");
                    kept.failed = Some(now);
                }
            }
        }
        kept.credentials.as_ref().and_then(|(found, _)| found.told(self.clock.now()))
    }

    /// Time that the credentials held have left; `None` where there are none, or where they are being fetched.
    pub(crate) fn left(&self) -> Option<Duration> {
        let kept = self.kept.try_lock().ok()?;
        kept.credentials.as_ref().map(|(found, _)| found.left(self.clock.now()))
    }

    async fn fetch(&self) -> Result<Parsed, CredentialsError> {
        let found = match &self.source {
            CredentialsConfig::Imds { endpoint } => imds::fetch(endpoint).await?,
            CredentialsConfig::File { path } => {
                let text = tokio::fs::read(path).await.map_err(CredentialsError::File)?;
                parse::process_output(&Zeroizing::new(text))?
            }
            CredentialsConfig::Environment {} => {
                let variable = |name| (self.variables)(name).filter(|value| !value.is_empty());
                let required = |name| variable(name).ok_or(CredentialsError::Variable(name));
                Parsed::lasting(
                    required("AWS_ACCESS_KEY_ID")?,
                    required("AWS_SECRET_ACCESS_KEY")?,
                    variable("AWS_SESSION_TOKEN").unwrap_or_default(),
                )
            }
            CredentialsConfig::Static { access_key_id, secret_access_key, session_token } => {
                Parsed::lasting(access_key_id.clone(), secret_access_key.to_string(), session_token.to_string())
            }
        };
        if found.left(self.clock.now()) < LEAST { Err(CredentialsError::Expired) } else { Ok(found) }
    }
}

impl Kept {
    fn is_due(&self, now: Timestamp) -> bool {
        let Some((credentials, since)) = &self.credentials else { return true };
        let old = credentials.left(now) < AHEAD || now.since(*since) >= KEPT || now < *since;
        // A clock that was set back says nothing of how long ago something was.
        let retry = self.failed.is_none_or(|failed| now < failed || now.since(failed) >= RETRY);
        old && (retry || credentials.left(now) < LEAST)
    }
}

impl Parsed {
    fn left(&self, now: Timestamp) -> Duration {
        self.expires.map_or(UNLIMITED, |expires| expires.since(now))
    }

    fn told(&self, now: Timestamp) -> Option<Told> {
        let left = self.left(now);
        let told = || Told::new(&*self.access_key_id, &**self.secret_access_key, &**self.session_token, left.as_secs());
        (left >= LEAST).then(told)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?})", self.source)
    }
}
