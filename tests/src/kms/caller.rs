use std::{sync::Mutex, time::Duration};

use enclave_app::kms::{CredentialSource, CredentialsError, SessionCredentials};
use futures_util::future::BoxFuture;
use transcode_confidential::time::Timestamp;
use zeroize::Zeroizing;

/// Session credentials as their holder sees them.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedCredentials {
    /// Names the session.
    pub access_key_id: String,
    /// Signs.
    pub secret_access_key: String,
    /// Goes along with every request.
    pub session_token: String,
    /// From the time of issue.
    pub lifetime: Duration,
}

impl IssuedCredentials {
    /// As the enclave takes them.
    pub fn to_session(&self) -> SessionCredentials {
        SessionCredentials::new(
            self.access_key_id.clone(),
            Zeroizing::new(self.secret_access_key.clone()),
            Zeroizing::new(self.session_token.clone()),
            self.lifetime,
        )
        .expect("well-formed credentials")
    }
}

/// The same as KMS knows them.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Session {
    pub(super) secret_access_key: String,
    pub(super) session_token: String,
    pub(super) role: String,
    pub(super) expires_ms: u64,
}

impl Session {
    pub(super) const fn is_over(&self, now: Timestamp) -> bool {
        self.expires_ms <= now.0
    }
}

/// A source of credentials that tests fill, and that counts.
#[derive(Default)]
pub struct MockCredentials {
    state: Mutex<Source>,
}

#[derive(Default)]
struct Source {
    current: Option<IssuedCredentials>,
    fetches: usize,
}

impl MockCredentials {
    /// Has those.
    pub fn holding(credentials: IssuedCredentials) -> Self {
        Self { state: Mutex::new(Source { current: Some(credentials), fetches: 0 }) }
    }

    /// Gives those, or none, from now on.
    pub fn set(&self, credentials: Option<IssuedCredentials>) {
        self.state.lock().expect("no test panics while it holds this").current = credentials;
    }

    /// How often they were fetched.
    pub fn fetches(&self) -> usize {
        self.state.lock().expect("no test panics while it holds this").fetches
    }
}

impl CredentialSource for MockCredentials {
    fn fetch(&self) -> BoxFuture<'_, Result<SessionCredentials, CredentialsError>> {
        Box::pin(async {
            let mut state = self.state.lock().expect("no test panics while it holds this");
            state.fetches += 1;
            let current = state.current.as_ref().map(IssuedCredentials::to_session);
            current.ok_or_else(|| CredentialsError::Unavailable("none in the mock".to_owned()))
        })
    }
}
