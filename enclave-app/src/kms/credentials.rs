//! The role's credentials.

use std::{fmt, sync::Arc, time::Duration};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError as SdkCredentialsError, future},
};
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::Mutex;
use transcode_confidential::{
    protocol::host,
    time::{Clock, Timestamp},
};
use zeroize::Zeroizing;

/// Why there are no credentials to sign with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The source has none now.
    #[error("the parent has no credentials: {0}")]
    Unavailable(String),
    /// What the source gave cannot be credentials.
    #[error("the parent gave malformed credentials: {0}")]
    Malformed(&'static str),
    /// What the source gave has expired already.
    #[error("the parent gave credentials that have expired")]
    Expired,
}

/// Where the role's credentials come from: the parent in production. It can withhold them; with wrong ones KMS refuses.
pub trait CredentialSource: Send + Sync {
    /// The newest credentials that the source has.
    fn fetch(&self) -> BoxFuture<'_, Result<SessionCredentials, CredentialsError>>;
}

/// Temporary credentials of a role. They come with their remaining lifetime, not with a date: the parent's clock is its own.
pub struct SessionCredentials {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Zeroizing<String>,
    remaining: Duration,
}

impl SessionCredentials {
    /// Checks lengths and characters: the values go into HTTP headers. Long-lived keys have an empty session token.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn new(
        access_key_id: String,
        secret_access_key: Zeroizing<String>,
        session_token: Zeroizing<String>,
        remaining: Duration,
    ) -> Result<Self, CredentialsError> {
        let graphic = |text: &str, max| (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !(1..=128).contains(&access_key_id.len()) || !access_key_id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(CredentialsError::Malformed("access key id"));
        }
        if !graphic(&secret_access_key, 256) {
            return Err(CredentialsError::Malformed("secret access key"));
        }
        if !session_token.is_empty() && !graphic(&session_token, 16 * 1024) {
            return Err(CredentialsError::Malformed("session token"));
        }
        if remaining.is_zero() {
            return Err(CredentialsError::Expired);
        }
        Ok(Self { access_key_id, secret_access_key, session_token, remaining: remaining.min(MAX_LIFETIME) })
    }

    /// The part that is no secret.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    fn to_sdk(&self) -> Credentials {
        // No expiry: this module keeps it, against the enclave's clock.
        let token = Some(self.session_token.as_str()).filter(|token| !token.is_empty());
        Credentials::new(&self.access_key_id, self.secret_access_key.as_str(), token.map(str::to_owned), None, "parent")
    }
}

impl TryFrom<host::Credentials> for SessionCredentials {
    type Error = CredentialsError;

    fn try_from(given: host::Credentials) -> Result<Self, CredentialsError> {
        let remaining = Duration::from_secs(given.remaining_secs);
        Self::new(given.access_key_id, given.secret_access_key, given.session_token, remaining)
    }
}

impl fmt::Debug for SessionCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionCredentials({}, {:?} left)", self.access_key_id, self.remaining)
    }
}

/// The longest session of a role.
const MAX_LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How long before their end credentials are replaced; EC2 has new ones at least five minutes ahead.
const REFRESH_AHEAD: Duration = Duration::from_secs(300);
/// How long to wait after a refresh ahead of need failed.
const REFRESH_PAUSE: Duration = Duration::from_secs(5);

/// Counts how often credentials were thrown away, so that many calls that failed with the same ones throw away those and
/// not their successors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// Holds the newest credentials; refreshes them ahead of their end, one fetch at a time.
#[derive(Clone)]
pub(super) struct HeldCredentials {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<dyn CredentialSource>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    held: Option<Held>,
    generation: u64,
}

struct Held {
    credentials: SessionCredentials,
    expires: Timestamp,
    refresh: Timestamp,
}

impl HeldCredentials {
    pub(super) fn new(source: Arc<dyn CredentialSource>, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(State { held: None, generation: 0 });
        Self { shared: Arc::new(Shared { source, clock, state }) }
    }

    /// Names the credentials that a call started now will use at the oldest.
    pub(super) async fn generation(&self) -> Generation {
        Generation(self.shared.state.lock().await.generation)
    }

    /// Throws away what is held, unless somebody did so since `failed` was taken.
    pub(super) async fn discard(&self, failed: Generation) {
        let mut state = self.shared.state.lock().await;
        if state.generation == failed.0 {
            state.generation = state.generation.wrapping_add(1);
            state.held = None;
        }
    }

    /// Lifetime left of what is held; zero where nothing is, or where it is being fetched.
    pub(super) fn remaining(&self) -> Duration {
        let Ok(state) = self.shared.state.try_lock() else { return Duration::ZERO };
        let expires = state.held.as_ref().map_or(Timestamp(0), |held| held.expires);
        Duration::from_millis(expires.0.saturating_sub(self.shared.clock.now().0))
    }

    async fn current(&self) -> Result<Credentials, CredentialsError> {
        let Shared { source, clock, state } = &*self.shared;
        // Held across the fetch: whoever comes meanwhile waits for it instead of fetching too.
        let mut state = state.lock().await;
        let asked = clock.now();
        if let Some(held) = state.held.as_ref().filter(|held| asked < held.refresh) {
            return Ok(held.credentials.to_sdk());
        }
        match source.fetch().await {
            Ok(fetched) => {
                let sdk = fetched.to_sdk();
                state.held = Some(Held::since(fetched, asked));
                Ok(sdk)
            }
            Err(error) => match state.held.as_mut().filter(|held| clock.now() < held.expires) {
                Some(held) => {
                    held.refresh = clock.now().plus(REFRESH_PAUSE);
                    tracing::warn!(%error, "credentials could not be refreshed ahead of their end");
                    Ok(held.credentials.to_sdk())
                }
                None => Err(error),
            },
        }
    }
}

impl Held {
    /// The lifetime counts from before the source was asked, so it is never overestimated.
    fn since(credentials: SessionCredentials, asked: Timestamp) -> Self {
        let ahead = REFRESH_AHEAD.min(credentials.remaining / 4);
        let expires = asked.plus(credentials.remaining);
        Self { credentials, expires, refresh: expires.minus(ahead) }
    }
}

impl fmt::Debug for HeldCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldCredentials")
    }
}

impl ProvideCredentials for HeldCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.current().await.map_err(SdkCredentialsError::provider_error) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(id: &str, secret: &str, token: &str, secs: u64) -> Result<String, CredentialsError> {
        SessionCredentials::try_from(host::Credentials::new(id, secret, token, secs)).map(|taken| format!("{taken:?}"))
    }

    #[test]
    fn what_could_not_be_credentials_is_refused_by_its_part() {
        assert_eq!(taken("ASIA1", "a/b+c", "tok=", 60), Ok("SessionCredentials(ASIA1, 60s left)".to_owned()));
        assert!(taken("AKIA1", "a", "", u64::MAX).is_ok());
        assert_eq!(taken("ASIA\r\n", "a", "b", 60), Err(CredentialsError::Malformed("access key id")));
        assert_eq!(taken("", "a", "b", 60), Err(CredentialsError::Malformed("access key id")));
        assert_eq!(taken("ASIA1", "a b", "c", 60), Err(CredentialsError::Malformed("secret access key")));
        assert_eq!(taken("ASIA1", "", "c", 60), Err(CredentialsError::Malformed("secret access key")));
        assert_eq!(taken("ASIA1", "a", "b\n", 60), Err(CredentialsError::Malformed("session token")));
        assert_eq!(taken("ASIA1", "a", &"b".repeat(20_000), 60), Err(CredentialsError::Malformed("session token")));
        assert_eq!(taken("ASIA1", "a", "b", 0), Err(CredentialsError::Expired));
    }
}
