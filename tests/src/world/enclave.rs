use std::sync::Arc;

use enclave_app::{Fatal, Parts, Serving, clock::KernelBoottime, config::Config};
use rustls::RootCertStore;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use transcode_confidential::attestation::TrustRoot;

use super::island::Island;
use crate::nsm::MockNsm;

/// What an enclave is handed besides its NSM.
pub(super) struct Wiring {
    pub(super) config: Config,
    pub(super) root: TrustRoot,
    pub(super) kms_roots: RootCertStore,
}

/// An enclave that serves: the production code on a runtime of its own.
pub(super) struct RunningEnclave {
    pub(super) serving: Serving,
    pub(super) nsm: Arc<MockNsm>,
    island: Island,
    task: JoinHandle<Result<(), Fatal>>,
    shutdown: CancellationToken,
}

impl RunningEnclave {
    /// Boots; comes back when the enclave serves or has given up.
    pub(super) async fn start(wiring: Wiring, nsm: Arc<MockNsm>) -> Result<Self, Fatal> {
        let island = Island::new("enclave");
        let shutdown = CancellationToken::new();
        let (told, serving) = oneshot::channel();
        let parts = Parts {
            config: wiring.config,
            nsm: Arc::clone(&nsm) as _,
            attestation_root: wiring.root,
            kms_roots: wiring.kms_roots,
            boottime: Arc::new(KernelBoottime),
        };
        let on_serving = move |serving| drop(told.send(serving));
        let mut task = island.spawn(enclave_app::run(parts, on_serving, shutdown.clone()));
        match serving.await {
            Ok(serving) => Ok(Self { serving, nsm, island, task, shutdown }),
            Err(_) => {
                let ended = (&mut task).await.expect("no panic in the enclave");
                island.kill().await;
                Err(ended.expect_err("it ended without serving"))
            }
        }
    }

    pub(super) fn lives(&self) -> bool {
        !self.task.is_finished()
    }

    pub(super) async fn stop(self) -> Result<(), Fatal> {
        self.shutdown.cancel();
        self.ended().await
    }

    pub(super) async fn ended(self) -> Result<(), Fatal> {
        let ended = self.task.await.expect("no panic in the enclave");
        self.island.kill().await;
        ended
    }

    pub(super) async fn kill(self) {
        self.island.kill().await;
    }
}
