//! The host service: what the enclave asks of its parent, answered for one live session at a time.
//!
//! | rule | why |
//! |---|---|
//! | the first frame is `Hello`, and no other is | a session has one beginning |
//! | another session id is refused as long as one is alive | two enclaves must not write one log |
//! | the same id takes the session over; the old connection ends first | an enclave that lost its connection comes back at once |
//! | a session ends with its connection, or after a time without a frame | a dead enclave does not lock its successor out |
//! | a malformed frame ends the connection | nothing after it can be understood |

mod fence;
mod session;
mod staged;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use transport::{Drained, Limits, Listener, Stream, serve};

use crate::{
    config::HostConfig, credentials::Credentials, enclave::EnclavePeer, figures::EnclaveFigures, metrics::Metrics,
    policy::PolicySource, sometimes::Sometimes, store::StoreHandle,
};
use fence::Fence;
use session::{Ended, Session};

/// Connections at the same time: the live session, its successor, and some that will be refused.
const CONNECTIONS: usize = 8;

/// Answers the enclave.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) store: StoreHandle,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) policy: Option<PolicySource>,
    fence: Fence,
    /// The enclave is asked to stop at its next ping.
    stop_wanted: AtomicBool,
    session_timeout: Duration,
    frame_timeout: Duration,
    enclave: EnclavePeer,
    metrics: Arc<Metrics>,
    complaints: Sometimes,
    pub(crate) figures: EnclaveFigures,
}

impl Host {
    pub(crate) fn new(
        config: &HostConfig,
        enclave: EnclavePeer,
        store: StoreHandle,
        credentials: Option<Credentials>,
        policy: Option<PolicySource>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            store,
            credentials,
            policy,
            fence: Fence::default(),
            stop_wanted: AtomicBool::new(false),
            session_timeout: config.session_timeout,
            frame_timeout: config.frame_timeout,
            enclave,
            metrics,
            complaints: Sometimes::default(),
            figures: EnclaveFigures::default(),
        }
    }

    /// Asks the live session's enclave to seal its log and end; it hears of it within seconds. Says whether there is one.
    pub(crate) fn stop_enclave(&self) -> bool {
        let alive = self.fence.is_alive();
        self.stop_wanted.store(alive, Ordering::Release);
        alive
    }

    /// Serves one listener until `shutdown`; what is under way is answered first, as far as `drain` allows.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: Listener,
        drain: Duration,
        shutdown: CancellationToken,
    ) -> Drained {
        let token = shutdown.clone();
        let handler = move |stream| Arc::clone(&self).connection(stream, token.clone());
        serve(listener, Limits::new(CONNECTIONS, drain), shutdown, handler).await
    }

    async fn connection(self: Arc<Self>, stream: Stream, shutdown: CancellationToken) {
        let peer = stream.peer();
        if !self.enclave.admits(peer) {
            self.metrics.host_foreign_total.increment();
            if self.complaints.now() {
                warn!(%peer, "a peer that is not the enclave asked for the host service");
            }
            return;
        }
        let ended = Session::new(&self, stream).run(shutdown).await;
        match &ended {
            Ended::Closed | Ended::TakenOver | Ended::Shutdown => info!(%peer, %ended, "a host connection ended"),
            Ended::Fenced => self.metrics.host_fenced_total.increment(),
            Ended::Malformed(_) => self.metrics.host_malformed_total.increment(),
            Ended::TimedOut => self.metrics.host_timed_out_total.increment(),
            Ended::Failed(_) | Ended::Store => {}
        }
        let ordinary = matches!(ended, Ended::Closed | Ended::TakenOver | Ended::Shutdown);
        if !ordinary && self.complaints.now() {
            warn!(%peer, %ended, "a host connection was ended");
        } else if !ordinary {
            debug!(%peer, %ended, "a host connection was ended");
        }
    }
}
