//! The relay: bytes from clients to the enclave and back, understood by neither the proxy nor the host.

mod buffer;
mod carry;
mod clients;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use transport::{Drained, Endpoint, Limits, Listener, Slots, Stream, serve};

pub use buffer::BufferPool;
pub use carry::{Carried, End, Patience, carry};
use clients::Clients;

use crate::{config::RelayConfig, metrics::Metrics, reloadable::Reloadable, sometimes::Sometimes};

/// Relays every connection of some listeners to one endpoint.
#[derive(Debug)]
pub(crate) struct Relay {
    settings: Reloadable<Settings>,
    slots: Arc<Slots>,
    clients: Arc<Clients>,
    buffers: Arc<BufferPool>,
    metrics: Arc<Metrics>,
    complaints: Sometimes,
}

#[derive(Debug)]
struct Settings {
    enclave: Endpoint,
    connect_timeout: Duration,
    patience: Patience,
    max_per_client: Option<NonZeroUsize>,
}

impl Relay {
    pub(crate) fn new(
        enclave: &Endpoint,
        config: &RelayConfig,
        buffers: Arc<BufferPool>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            settings: Reloadable::new(Settings::of(enclave, config)),
            slots: Arc::new(Slots::new(config.max_connections)),
            clients: Arc::default(),
            buffers,
            metrics,
            complaints: Sometimes::default(),
        }
    }

    /// New connections follow the new settings; open ones keep theirs.
    pub(crate) fn reload(&self, enclave: &Endpoint, config: &RelayConfig) {
        self.settings.replace(Settings::of(enclave, config));
        self.slots.set_limit(config.max_connections);
    }

    /// Serves one listener until `shutdown`, then drains.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: Listener,
        drain: Duration,
        shutdown: CancellationToken,
    ) -> Drained {
        let limits = Limits { slots: Arc::clone(&self.slots), drain };
        serve(listener, limits, shutdown, move |stream| Arc::clone(&self).connection(stream)).await
    }

    async fn connection(self: Arc<Self>, mut client: Stream) {
        let metrics = &self.metrics;
        metrics.relay_accepted_total.increment();
        let _open = metrics.relay_open.hold();
        let settings = self.settings.current();
        let Some(_place) = self.clients.admit(client.peer(), settings.max_per_client) else {
            metrics.relay_refused_total.increment();
            if self.complaints.now() {
                warn!(peer = %client.peer(), "a client has too many connections");
            }
            return;
        };
        let begun = Instant::now();
        let mut enclave = match settings.enclave.connect(settings.connect_timeout).await {
            Ok(enclave) => {
                metrics.relay_connect_seconds.observe(begun.elapsed());
                enclave
            }
            Err(error) => {
                metrics.relay_unreachable_total.increment();
                if self.complaints.now() {
                    warn!(%error, "the enclave cannot be reached");
                }
                return;
            }
        };
        let counters = [&metrics.relay_in_bytes_total, &metrics.relay_out_bytes_total];
        let carried = carry(&mut client, &mut enclave, &self.buffers, settings.patience, counters).await;
        carried.end.count(&metrics.relay_timed_out_total, &metrics.relay_failed_total);
        debug!(peer = %client.peer(), sent = carried.bytes[0], received = carried.bytes[1], end = ?carried.end, "connection ended");
    }
}

impl Settings {
    fn of(enclave: &Endpoint, config: &RelayConfig) -> Self {
        Self {
            enclave: enclave.clone(),
            connect_timeout: config.connect_timeout,
            patience: Patience { idle: config.idle_timeout, linger: config.linger, stall: config.stall_timeout },
            max_per_client: config.max_per_client,
        }
    }
}
