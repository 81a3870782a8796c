use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use transcode_confidential::protocol::host::{Reply, Request};
use zeroize::Zeroizing;

use super::{HostFailure, HostLink};
use crate::kms::{CredentialSource, CredentialsError, SessionCredentials};

/// How long a caller waits for the connection to come back.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// The connection to the parent that is alive now, for everybody but the log's owner.
#[derive(Clone)]
pub struct CurrentLink(watch::Receiver<Option<Arc<HostLink>>>);

impl CurrentLink {
    /// Follows what the log's owner connects.
    pub const fn following(link: watch::Receiver<Option<Arc<HostLink>>>) -> Self {
        Self(link)
    }

    /// Asks the parent, over the connection there is or, for a while, over the next one.
    ///
    /// # Errors
    /// [`HostFailure`].
    pub async fn call(&self, request: Request) -> Result<Reply, HostFailure> {
        let mut link = self.0.clone();
        let alive = link.wait_for(|link| link.as_ref().is_some_and(|link| !link.is_closed()));
        let link = match tokio::time::timeout(RECONNECT_PATIENCE, alive).await {
            Ok(Ok(link)) => link.clone(),
            _ => None,
        };
        link.ok_or(HostFailure::Ended)?.call(request).await
    }
}

/// AWS credentials, from the parent.
pub struct HostCredentials(pub CurrentLink);

impl CredentialSource for HostCredentials {
    fn fetch(&self) -> BoxFuture<'_, Result<SessionCredentials, CredentialsError>> {
        Box::pin(async move {
            let reply = self.0.call(Request::Credentials).await;
            match reply.map_err(|error| CredentialsError::Unavailable(error.to_string()))? {
                Reply::Credentials(credentials) => SessionCredentials::new(
                    credentials.access_key_id,
                    Zeroizing::new(credentials.secret_access_key.to_string()),
                    Zeroizing::new(credentials.session_token.to_string()),
                    Duration::from_secs(credentials.remaining_secs),
                ),
                _ => Err(CredentialsError::Unavailable(HostFailure::Unexpected.to_string())),
            }
        })
    }
}
