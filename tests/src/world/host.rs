//! What a test does to the parent, and asks of it.

use std::path::PathBuf;

use super::{
    World,
    parent::{Parent, RunningProxy},
};
use crate::parent::ScriptedParent;

impl World {
    /// Starts the proxy that was stopped or killed.
    pub async fn start_proxy(&mut self) {
        let (disk, clock) = (self.disk.clone(), self.parent_clock.clone());
        self.parent = Parent::Proxy(RunningProxy::start(&self.proxy_config, disk, clock).await);
    }

    /// Stops the proxy as SIGTERM does.
    pub async fn stop_proxy(&mut self) {
        if let Parent::Proxy(proxy) = std::mem::replace(&mut self.parent, Parent::Gone) {
            proxy.stop().await;
        }
    }

    /// Ends the proxy where it stands.
    pub async fn kill_proxy(&mut self) {
        if let Parent::Proxy(proxy) = std::mem::replace(&mut self.parent, Parent::Gone) {
            proxy.kill().await;
        }
    }

    /// The proxy's configuration, TOML.
    pub fn proxy_config(&self) -> &str {
        &self.proxy_config
    }

    /// Changes the proxy's configuration, from its next start on.
    pub fn configure_proxy(&mut self, change: impl FnOnce(&str) -> String) {
        self.proxy_config = change(&self.proxy_config);
    }

    /// The parent that does as it is told.
    ///
    /// # Panics
    /// Where the world has another one.
    pub const fn scripted(&self) -> &ScriptedParent {
        match &self.parent {
            Parent::Scripted(parent) => parent,
            _ => panic!("this world has no scripted parent"),
        }
    }

    /// Asks the enclave to stop, as SIGUSR1 to the proxy does. Says whether there is one that could be asked.
    pub fn ask_enclave_to_stop(&self) -> bool {
        matches!(&self.parent, Parent::Proxy(proxy) if proxy.stop_enclave())
    }

    /// Offers the enclave a policy document through the parent.
    pub fn offer_policy(&self, document: &[u8]) {
        match &self.parent {
            Parent::Scripted(parent) => parent.offer_policy(Some(document.to_vec())),
            _ => {
                let path = self.dir.path().join("policies").join("policy.cose");
                std::fs::write(path.with_extension("new"), document).expect("a writable directory");
                std::fs::rename(path.with_extension("new"), path).expect("a writable directory");
            }
        }
    }

    /// Asks the proxy's admin endpoint; gives status and body.
    ///
    /// # Panics
    /// Where nobody answers.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::UnixStream::connect(self.admin_socket()).await.expect("the proxy runs");
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, body.to_owned())
    }

    /// Where the proxy's admin endpoint listens.
    pub fn admin_socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }
}
