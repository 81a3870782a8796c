use std::{sync::Arc, time::Duration};

use parent_proxy::{Dependencies, Proxy, StartError, config::Config, store::StoreError};
use tokio_util::sync::CancellationToken;

use super::island::Island;
use crate::{clock::JumpingClock, disk::FaultyDisk, parent::ScriptedParent};

/// The parent of a world's enclaves.
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
pub(super) enum Parent {
    /// The real proxy.
    Proxy(RunningProxy),
    /// One that does as it is told.
    Scripted(ScriptedParent),
    /// None at the moment.
    Gone,
}

pub(super) struct RunningProxy {
    island: Island,
    proxy: Proxy,
    shutdown: CancellationToken,
}

impl RunningProxy {
    pub(super) async fn start(config: &str, disk: FaultyDisk, clock: JumpingClock) -> Self {
        let config = Config::parse(config, "world").expect("a good configuration");
        let dependencies = Dependencies { disk: Arc::new(disk), clock: Arc::new(clock), ..Dependencies::system() };
        let (island, shutdown) = (Island::new("proxy"), CancellationToken::new());
        let proxy = loop {
            let starting = parent_proxy::start(config.clone(), dependencies.clone(), shutdown.clone());
            match island.spawn(starting).await.expect("no panic") {
                // One that was killed here leaves a thread behind for a moment, as no killed process does.
                Err(StartError::Store(StoreError::Locked(_))) => tokio::time::sleep(Duration::from_millis(10)).await,
                started => break started.expect("the proxy starts"),
            }
        };
        Self { island, proxy, shutdown }
    }

    pub(super) fn reload(&self, config: &str) {
        self.proxy.reload(Config::parse(config, "world").expect("a good configuration"));
    }

    pub(super) fn stop_enclave(&self) -> bool {
        self.proxy.stop_enclave()
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.proxy.drained().await;
        self.island.kill().await;
    }

    pub(super) async fn kill(self) {
        self.island.kill().await;
    }
}
