//! Launching enclaves, and ending them.

use std::{sync::Arc, time::Duration};

use enclave_app::{Fatal, Serving, config};
use tokio::task::JoinHandle;
use transport::Endpoint;

use super::{
    World,
    enclave::{RunningEnclave, Wiring},
    parent::Parent,
};
use crate::nsm::{MockImage, MockNsm, Mode};

/// An enclave that does not serve yet.
pub struct Booting(JoinHandle<Result<RunningEnclave, Fatal>>);

impl Booting {
    /// Whether it serves or has given up.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl World {
    /// Launches an enclave of an image and waits until it serves.
    ///
    /// # Errors
    /// [`Fatal`] where it does not.
    pub async fn launch(&mut self, image: &MockImage) -> Result<(), Fatal> {
        self.launch_with(image, Mode::Production, |_| {}).await
    }

    /// As [`World::launch`], in a mode and with a configuration that differs: another image has another one.
    ///
    /// # Errors
    /// [`Fatal`] where it does not serve.
    pub async fn launch_with(
        &mut self,
        image: &MockImage,
        mode: Mode,
        change: impl FnOnce(&mut config::Config),
    ) -> Result<(), Fatal> {
        assert!(self.enclave.is_none(), "stop the enclave that runs first");
        let mut config = self.config.clone();
        change(&mut config);
        let nsm = self.hypervisor.launch_in(mode, image);
        self.run_enclave(nsm, config).await
    }

    /// As [`World::launch`] for an NSM that was launched, and perhaps told to misbehave, before.
    ///
    /// # Errors
    /// [`Fatal`] where it does not serve.
    pub async fn launch_on(&mut self, nsm: Arc<MockNsm>) -> Result<(), Fatal> {
        self.run_enclave(nsm, self.config.clone()).await
    }

    /// Launches another enclave of the same image beside the one that runs; it listens elsewhere.
    pub fn second_enclave(&self) -> Booting {
        let mut config = self.config.clone();
        config.parent.listen = Endpoint::Unix(self.dir.path().join("enclave-2.sock"));
        let nsm = self.hypervisor.launch(self.image());
        let wiring = Wiring { config, root: self.hypervisor.trust_root(), kms_roots: self.kms.roots() };
        Booting(tokio::spawn(RunningEnclave::start(wiring, nsm)))
    }

    /// Waits until an enclave that boots serves; it is the world's enclave then.
    ///
    /// # Errors
    /// [`Fatal`] where it does not.
    pub async fn adopt(&mut self, booting: Booting) -> Result<(), Fatal> {
        assert!(self.enclave.is_none(), "stop the enclave that runs first");
        let enclave = booting.0.await.expect("no panic in the enclave")?;
        if let Parent::Proxy(proxy) = &self.parent {
            let text = self.proxy_config.replace("enclave.sock", "enclave-2.sock");
            proxy.reload(&text);
        }
        self.enclave = Some(enclave);
        Ok(())
    }

    /// Stops the enclave as SIGTERM does.
    ///
    /// # Errors
    /// [`Fatal`] where it did not end well.
    pub async fn stop_enclave(&mut self) -> Result<(), Fatal> {
        self.enclave.take().expect("an enclave runs").stop().await
    }

    /// Ends the enclave where it stands.
    pub async fn kill_enclave(&mut self) {
        self.enclave.take().expect("an enclave runs").kill().await;
    }

    /// Stops the enclave and launches its image again.
    ///
    /// # Panics
    /// Where either goes wrong.
    pub async fn restart_enclave(&mut self) {
        let image = self.images[0].clone();
        self.stop_enclave().await.expect("the enclave ends well");
        self.launch(&image).await.expect("the enclave boots again");
    }

    /// Waits for the enclave to end by itself.
    ///
    /// # Panics
    /// Where it does not within two minutes.
    pub async fn enclave_ends(&mut self) -> Result<(), Fatal> {
        let enclave = self.enclave.take().expect("an enclave runs");
        tokio::time::timeout(Duration::from_secs(120), enclave.ended()).await.expect("the enclave ends")
    }

    /// Whether the enclave that was launched last runs on.
    pub fn enclave_lives(&self) -> bool {
        self.enclave.as_ref().is_some_and(RunningEnclave::lives)
    }

    /// What the enclave says of itself since it serves.
    pub fn serving(&self) -> &Serving {
        &self.enclave.as_ref().expect("an enclave runs").serving
    }

    /// The NSM of the enclave.
    pub fn nsm(&self) -> &Arc<MockNsm> {
        &self.enclave.as_ref().expect("an enclave runs").nsm
    }

    async fn run_enclave(&mut self, nsm: Arc<MockNsm>, config: config::Config) -> Result<(), Fatal> {
        let wiring = Wiring { config, root: self.hypervisor.trust_root(), kms_roots: self.kms.roots() };
        self.enclave = Some(RunningEnclave::start(wiring, nsm).await?);
        Ok(())
    }
}
