//! The egress: the enclave's only way to the world. It says where to, and gets there only if the configuration names it.
//!
//! The enclave opens a connection and sends a [`preamble`]; one byte answers, [`Answer`]; then bytes are carried. TLS ends in
//! the enclave, so nothing that passes here can be read or changed unnoticed: the allow-list protects the host's network
//! from the enclave, not the enclave from the host.

mod dial;
mod preamble;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use transport::{Drained, Endpoint, Limits, Listener, Slots, Stream, serve};

pub use preamble::{PreambleError, preamble, read_preamble};

use crate::{
    config::{EgressConfig, Target},
    enclave::EnclavePeer,
    metrics::Metrics,
    relay::{BufferPool, Patience, carry},
    reloadable::Reloadable,
    sometimes::Sometimes,
};

/// How long the enclave may take to say where to.
const PREAMBLE_PATIENCE: Duration = Duration::from_secs(5);

/// The byte that answers a preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Connected: what follows comes from the target.
    Connected = 0,
    /// The target is not allowed, or the preamble is malformed. The connection is closed.
    Refused = 1,
    /// The target is allowed, but no address of it answered. The connection is closed.
    Unreachable = 2,
}

/// Carries the enclave's connections to allowed targets.
#[derive(Debug)]
pub(crate) struct Egress {
    settings: Reloadable<Settings>,
    slots: Arc<Slots>,
    enclave: EnclavePeer,
    buffers: Arc<BufferPool>,
    metrics: Arc<Metrics>,
    complaints: Sometimes,
}

#[derive(Debug)]
struct Settings {
    allow: BTreeSet<Target>,
    resolve: BTreeMap<Target, Endpoint>,
    connect_timeout: Duration,
    patience: Patience,
}

impl Egress {
    pub(crate) fn new(
        config: &EgressConfig,
        enclave: EnclavePeer,
        buffers: Arc<BufferPool>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            settings: Reloadable::new(Settings::of(config)),
            slots: Arc::new(Slots::new(config.max_connections)),
            enclave,
            buffers,
            metrics,
            complaints: Sometimes::default(),
        }
    }

    /// New connections follow the new settings; open ones keep theirs.
    pub(crate) fn reload(&self, config: &EgressConfig) {
        self.settings.replace(Settings::of(config));
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

    async fn connection(self: Arc<Self>, mut enclave: Stream) {
        let metrics = &self.metrics;
        if !self.enclave.admits(enclave.peer()) {
            metrics.host_foreign_total.increment();
            return;
        }
        metrics.egress_accepted_total.increment();
        let _open = metrics.egress_open.hold();
        let settings = self.settings.current();
        let (answer, target) = match timeout(PREAMBLE_PATIENCE, read_preamble(&mut enclave)).await {
            Ok(Ok(target)) => self.reach(&settings, &target).await,
            Ok(Err(error)) => {
                metrics.egress_malformed_total.increment();
                self.complain(|| warn!(%error, "an egress connection did not say where to"));
                (Answer::Refused, None)
            }
            Err(_) => {
                metrics.egress_malformed_total.increment();
                return;
            }
        };
        if enclave.write_all(&[answer as u8]).await.is_err() {
            return;
        }
        if let Some(mut target) = target {
            let counters = [&metrics.egress_out_bytes_total, &metrics.egress_in_bytes_total];
            let carried = carry(&mut enclave, &mut target, &self.buffers, settings.patience, counters).await;
            carried.end.count(&metrics.egress_timed_out_total, &metrics.egress_failed_total);
            debug!(sent = carried.bytes[0], received = carried.bytes[1], end = ?carried.end, "egress connection ended");
        }
    }

    async fn reach(&self, settings: &Settings, target: &Target) -> (Answer, Option<Stream>) {
        if !settings.allow.contains(target) {
            self.metrics.egress_refused_total.increment();
            self.complain(|| warn!(%target, "the enclave asked for a target that is not allowed"));
            return (Answer::Refused, None);
        }
        match dial::dial(target, settings.resolve.get(target), settings.connect_timeout).await {
            Ok(stream) => (Answer::Connected, Some(stream)),
            Err(error) => {
                self.metrics.egress_unreachable_total.increment();
                self.complain(|| warn!(%target, %error, "an allowed target cannot be reached"));
                (Answer::Unreachable, None)
            }
        }
    }

    fn complain(&self, line: impl FnOnce()) {
        if self.complaints.now() {
            line();
        }
    }
}

impl Settings {
    fn of(config: &EgressConfig) -> Self {
        let idle = config.idle_timeout;
        Self {
            allow: config.allow.clone(),
            resolve: config.resolve.clone(),
            connect_timeout: config.connect_timeout,
            patience: Patience { idle, linger: idle, stall: idle },
        }
    }
}
