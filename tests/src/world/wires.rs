use std::path::Path;

use transport::Endpoint;

use crate::interposer::Interposer;

/// An interposer on each kind of connection of a world.
pub struct Wires {
    /// From clients to the proxy.
    pub relay: Interposer,
    /// From the proxy to the enclave.
    pub enclave: Interposer,
    /// From the enclave to the host service: the log, credentials, policies.
    pub host: Interposer,
    /// From the enclave to the egress, and through it to KMS.
    pub egress: Interposer,
}

impl Wires {
    pub(super) async fn lay(dir: &Path) -> Self {
        let between = |socket: &str| (end(dir, socket, true), end(dir, socket, false));
        let lay = async |(from, to): (Endpoint, Endpoint)| Interposer::start(&from, to).await;
        Self {
            relay: lay(between("relay")).await,
            enclave: lay(between("enclave")).await,
            host: lay(between("host")).await,
            egress: lay(between("egress")).await,
        }
    }
}

/// Where one connects to for a socket: to the socket itself, or to what sits before it.
pub(super) fn end(dir: &Path, socket: &str, interposed: bool) -> Endpoint {
    let wire = if interposed { "-wire" } else { "" };
    Endpoint::Unix(dir.join(format!("{socket}{wire}.sock")))
}
