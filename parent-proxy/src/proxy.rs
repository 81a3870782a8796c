//! Everything put together: bind, serve, reload, drain.

mod listeners;
mod services;

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transcode_confidential::time::{Clock, SystemClock};
use transport::{BindError, Drained, Endpoint};

use listeners::Listeners;
use services::Services;

use crate::{
    config::Config,
    credentials::Variables,
    metrics::Metrics,
    store::{
        Store, StoreError, StoreHandle,
        disk::{Disk, SystemDisk},
    },
};

/// How often the store is told that time passes.
const TICK: Duration = Duration::from_secs(1);

/// The world that the proxy lives in.
#[derive(Clone)]
pub struct Dependencies {
    /// For the names of quarantined tails and the lifetime of credentials.
    pub clock: Arc<dyn Clock>,
    /// Where the log lies.
    pub disk: Arc<dyn Disk>,
    /// The process's environment, for credentials from there.
    pub variables: Variables,
}

/// A running proxy. It serves until the token that it was started with is cancelled, whether or not this is kept.
#[derive(Debug)]
pub struct Proxy {
    addresses: Addresses,
    metrics: Arc<Metrics>,
    config: Mutex<Config>,
    services: Services,
    supervisor: tokio::task::JoinHandle<Drained>,
}

/// Where it listens: as configured, with ports that the system chose in place of 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// For clients, in the order of the configuration.
    pub relay: Vec<Endpoint>,
    /// For the enclave's way out.
    pub egress: Option<Endpoint>,
    /// For the host protocol.
    pub host: Option<Endpoint>,
    /// For health and metrics.
    pub admin: Option<Endpoint>,
}

/// Why the proxy does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// An endpoint cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives no thread.
    #[error("cannot start the store's thread: {0}")]
    Thread(#[source] io::Error),
}

/// Starts the proxy: opens the store, binds every endpoint, serves. When this returns, every endpoint takes connections.
///
/// After `shutdown` is cancelled the relay takes no more clients, and those it has get the configured time to finish; the
/// enclave keeps its host service and its way out until then, because what clients do must be recorded. Then the rest
/// stops. [`Proxy::drained`] waits for the end.
///
/// # Errors
/// [`StartError`]; nothing is left running then.
pub async fn start(
    config: Config,
    dependencies: Dependencies,
    shutdown: CancellationToken,
) -> Result<Proxy, StartError> {
    let metrics = Arc::new(Metrics::default());
    // Everything that can fail comes first; nothing serves before all of it is there. The store's lock comes before any
    // endpoint, so that a second proxy by mistake disturbs nothing.
    let store = open_store(&config, &dependencies, &metrics).await?;
    let (listeners, addresses) = Listeners::bind(&config).await?;
    let (handle, thread) = match store {
        Some(store) => StoreHandle::start(store).map(|(handle, thread)| (Some(handle), Some(thread))),
        None => Ok((None, None)),
    }
    .map_err(StartError::Thread)?;
    let services = Services::new(&config, &dependencies, &metrics, handle.clone(), shutdown.clone());
    let running = services.clone().serve(listeners, config.drain, &shutdown);
    let ticking = handle.clone().map(|store| tokio::spawn(tick(store)));
    let supervisor = tokio::spawn(async move {
        let drained = running.drained().await;
        if let Some(ticking) = ticking {
            ticking.abort();
        }
        if let Some((handle, thread)) = handle.zip(thread) {
            handle.stop().await;
            // Whoever opens the store next finds the lock free.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        info!(accepted = drained.accepted, aborted = drained.aborted, "stopped");
        drained
    });
    info!(?addresses, "listening");
    Ok(Proxy { addresses, metrics, config: Mutex::new(config), services, supervisor })
}

impl Proxy {
    /// Where it listens.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What it counts.
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Takes over the limits, time-outs, targets and paths of another configuration; gives the names of the settings that
    /// differ and need a restart. Those stay as they are.
    pub fn reload(&self, new: Config) -> Vec<&'static str> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let left = config.needing_restart(&new);
        if let Some((relay, settings)) = self.services.relay.as_ref().zip(new.relay.as_ref()) {
            relay.reload(&new.enclave, settings);
        }
        if let Some((egress, settings)) = self.services.egress.as_ref().zip(new.egress.as_ref()) {
            egress.reload(settings);
        }
        let source = self.services.host.as_ref().and_then(|host| host.policy.as_ref());
        if let Some((source, policy)) = source.zip(new.policy.clone()) {
            source.reload(policy.path, policy.restore);
        }
        self.metrics.reloads_total.increment();
        if !left.is_empty() {
            warn!(settings = ?left, "changed settings that need a restart");
        }
        // What was not taken over is compared again next time.
        *config = Config { drain: config.drain, host: config.host.clone(), store: config.store.clone(), ..new };
        left
    }

    /// Asks the enclave to seal its log and end, which it hears within seconds; it stays away until it is launched again.
    /// Says whether there is one that could be asked.
    pub fn stop_enclave(&self) -> bool {
        self.services.host.as_ref().is_some_and(|host| host.stop_enclave())
    }

    /// Waits until it has stopped.
    pub async fn drained(self) -> Drained {
        self.supervisor.await.unwrap_or_default()
    }
}

impl Dependencies {
    /// The real disk and clock, and an empty environment.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), disk: Arc::new(SystemDisk), variables: Arc::new(|_| None) }
    }
}

impl fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dependencies").field("disk", &self.disk).finish_non_exhaustive()
    }
}

async fn open_store(
    config: &Config,
    dependencies: &Dependencies,
    metrics: &Arc<Metrics>,
) -> Result<Option<Store>, StartError> {
    let Some(settings) = config.store.clone() else { return Ok(None) };
    let (disk, clock, metrics) = (dependencies.disk.clone(), dependencies.clock.clone(), metrics.clone());
    // Reading a long log takes its time.
    let opened = tokio::task::spawn_blocking(move || Store::open(disk, settings, clock, metrics)).await;
    Ok(Some(opened.map_err(|_| StartError::Thread(io::ErrorKind::Other.into()))??))
}

async fn tick(store: StoreHandle) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let ticked = store.with(|store| {
            store.tick();
            Ok(())
        });
        if ticked.await.is_err() {
            return;
        }
    }
}
