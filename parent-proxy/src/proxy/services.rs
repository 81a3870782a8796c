use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;
use transport::Drained;

use super::{Dependencies, listeners::Listeners};
use crate::{
    admin::Admin,
    config::Config,
    credentials::Credentials,
    egress::Egress,
    enclave::EnclavePeer,
    host::Host,
    metrics::Metrics,
    policy::PolicySource,
    relay::{BufferPool, Relay},
    store::StoreHandle,
};

/// How long the enclave's own connections may go on once its clients are gone.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the proxy does; what the configuration leaves out is not there.
#[derive(Debug, Clone)]
pub(super) struct Services {
    pub(super) relay: Option<Arc<Relay>>,
    pub(super) egress: Option<Arc<Egress>>,
    pub(super) host: Option<Arc<Host>>,
    admin: Arc<Admin>,
}

/// Services at work.
pub(super) struct Running {
    front: JoinSet<Drained>,
    back: JoinSet<Drained>,
    last: CancellationToken,
}

impl Services {
    pub(super) fn new(
        config: &Config,
        dependencies: &Dependencies,
        metrics: &Arc<Metrics>,
        store: Option<StoreHandle>,
        stopping: CancellationToken,
    ) -> Self {
        let enclave = EnclavePeer::of(&config.enclave);
        let buffers = Arc::new(BufferPool::default());
        let relay = config.relay.as_ref().map(|relay| {
            let (buffers, metrics) = (Arc::clone(&buffers), Arc::clone(metrics));
            Arc::new(Relay::new(&config.enclave, relay, buffers, metrics))
        });
        let egress = config.egress.as_ref().map(|egress| {
            let (buffers, metrics) = (Arc::clone(&buffers), Arc::clone(metrics));
            Arc::new(Egress::new(egress, enclave, buffers, metrics))
        });
        let host = config.host.as_ref().zip(store).map(|(host, store)| {
            let credentials = config.credentials.clone().map(|source| {
                Credentials::new(source, Arc::clone(&dependencies.variables), Arc::clone(&dependencies.clock))
            });
            let policy = config.policy.clone().map(|policy| {
                let source = PolicySource::new(policy.path.clone());
                source.reload(policy.path, policy.restore);
                source
            });
            Arc::new(Host::new(host, enclave, store, credentials, policy, Arc::clone(metrics)))
        });
        let admin = Arc::new(Admin { host: host.clone(), metrics: Arc::clone(metrics), stopping });
        Self { relay, egress, host, admin }
    }

    /// Serves until `shutdown`. The relay stops first; the rest when its clients are gone.
    pub(super) fn serve(self, listeners: Listeners, drain: Duration, shutdown: &CancellationToken) -> Running {
        let (first, last) = (shutdown.clone(), CancellationToken::new());
        let (mut front, mut back) = (JoinSet::new(), JoinSet::new());
        if let Some(relay) = self.relay {
            for listener in listeners.relay {
                front.spawn(Arc::clone(&relay).serve(listener, drain, first.clone()));
            }
        }
        front.spawn(async move {
            first.cancelled().await;
            info!("shutting down");
            Drained::default()
        });
        if let Some((egress, listener)) = self.egress.zip(listeners.egress) {
            back.spawn(egress.serve(listener, LAST_WORDS, last.clone()));
        }
        if let Some((host, listener)) = self.host.zip(listeners.host) {
            back.spawn(host.serve(listener, LAST_WORDS, last.clone()));
        }
        if let Some(listener) = listeners.admin {
            back.spawn(self.admin.serve(listener, LAST_WORDS, last.clone()));
        }
        Running { front, back, last }
    }
}

impl Running {
    /// Waits for shutdown and for what is under way then.
    pub(super) async fn drained(mut self) -> Drained {
        let front = all(&mut self.front).await;
        self.last.cancel();
        let back = all(&mut self.back).await;
        Drained { accepted: front.accepted + back.accepted, aborted: front.aborted + back.aborted }
    }
}

async fn all(tasks: &mut JoinSet<Drained>) -> Drained {
    let mut total = Drained::default();
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or_default();
        total.accepted += ended.accepted;
        total.aborted += ended.aborted;
    }
    total
}
