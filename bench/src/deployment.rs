//! A whole system whose proxy and enclave are processes of their own; KMS, hypervisor root and people are here.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use testkit::world::{Caller, OPERATOR, ParentKind, Plan, World};
use transcode_confidential::keys::KeyRotationPolicy;

use crate::process::Process;

/// The image that the enclaves are of.
pub(crate) const IMAGE: &str = "enclave";
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) struct Deployment {
    pub(crate) world: World,
    proxy: Option<Process>,
    enclave: Option<Process>,
}

impl Deployment {
    /// Everything but the two processes.
    pub(crate) async fn prepared(rotation: KeyRotationPolicy) -> Self {
        let world =
            World::without_enclave(Plan { parent: ParentKind::Outside, key_defaults: rotation, ..Plan::default() })
                .await;
        let dir = world.dir();
        world.hypervisor.pki().save(dir);
        std::fs::write(dir.join("kms-ca.pem"), world.kms.authority_pem()).unwrap();
        std::fs::write(enclave_config(dir), enclave_toml(&world)).unwrap();
        std::fs::write(dir.join("proxy.toml"), world.proxy_config()).unwrap();
        Self { world, proxy: None, enclave: None }
    }

    pub(crate) fn start_proxy(&mut self) {
        self.proxy = Some(Process::proxy(&self.world.dir().join("proxy.toml")));
    }

    pub(crate) fn start_enclave(&mut self) {
        self.enclave = Some(Process::enclave(self.world.dir()));
    }

    pub(crate) fn kill_proxy(&mut self) {
        self.proxy.take().unwrap().kill();
    }

    pub(crate) fn kill_enclave(&mut self) {
        self.enclave.take().unwrap().kill();
    }

    pub(crate) fn stop_enclave(&mut self) {
        self.enclave.take().unwrap().stop();
    }

    pub(crate) fn stop_proxy(&mut self) {
        self.proxy.take().unwrap().stop();
    }

    /// Whether either process ended by itself, which neither may.
    pub(crate) fn has_lost_a_process(&mut self) -> bool {
        [&mut self.proxy, &mut self.enclave].into_iter().flatten().any(Process::has_ended)
    }

    /// Resident KiB and open files of proxy and enclave.
    pub(crate) fn sizes(&self) -> [(u64, usize); 2] {
        [&self.proxy, &self.enclave].map(|process| process.as_ref().map_or((0, 0), Process::size))
    }

    /// A client that may do everything.
    pub(crate) fn operator(&self) -> Caller {
        self.world.caller(OPERATOR)
    }

    /// Most resident memory of the enclave so far, KiB.
    pub(crate) fn peak_of_enclave(&self) -> u64 {
        self.enclave.as_ref().map_or(0, Process::peak)
    }

    /// Whether the proxy tells the enclave of snapshots; from its next start on.
    pub(crate) fn offer_snapshots(&self, offer: bool) {
        let config = self.world.proxy_config().replace("[store]\n", &format!("[store]\noffer_snapshots = {offer}\n"));
        std::fs::write(self.world.dir().join("proxy.toml"), config).unwrap();
    }

    /// Waits until the proxy has opened its store and listens.
    pub(crate) async fn listening(&self) {
        let admin = self.world.dir().join("admin.sock");
        until("the proxy does not come up", || async { UnixStream::connect(&admin).is_ok() }).await;
    }

    /// Waits until requests are answered.
    pub(crate) async fn serving(&self) {
        until("the system does not come up", || async { self.operator().client.status().await.is_ok() }).await;
    }
}

async fn until<F: Future<Output = bool>>(complaint: &str, mut condition: impl FnMut() -> F) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < PATIENCE, "{complaint}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Where the enclave's configuration lies.
pub(crate) fn enclave_config(dir: &Path) -> PathBuf {
    dir.join("enclave.toml")
}

/// The roots of the mock KMS.
pub(crate) fn kms_roots(dir: &Path) -> rustls::RootCertStore {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(dir.join("kms-ca.pem")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

/// One value of the proxy's metrics.
pub(crate) fn metric(admin: &Path, name: &str) -> f64 {
    let mut stream = UnixStream::connect(admin).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
    line.unwrap_or_else(|| panic!("no metric {name}")).rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn enclave_toml(world: &World) -> String {
    let config = world.config();
    let KeyRotationPolicy { max_age_secs, max_uses, require_attestation } = config.key_defaults;
    let parent = &config.parent;
    format!(
        r#"deployment = "{}"
kms_key_arn = "{}"
policy_authority = "{}"
client_ca = """
{}"""
[parent]
host = "{}"
egress = "{}"
listen = "{}"
[key_defaults]
max_age_secs = {max_age_secs}
max_uses = {max_uses}
require_attestation = {require_attestation}
[limits]
policy_poll_secs = 1
sweep_secs = 1
"#,
        config.deployment,
        config.kms_key_arn.as_str(),
        config.policy_authority,
        config.client_ca,
        parent.host,
        parent.egress,
        parent.listen,
    )
}
