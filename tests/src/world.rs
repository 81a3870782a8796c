//! A whole system in one process, in a directory of its own, over unix sockets: hypervisor, KMS, parent, enclave, clients.
//!
//! The enclave and the proxy run the code that ships; what stands in for AWS is outside of them. Each has a runtime of its
//! own and can be stopped as on a good day or killed in the middle of anything. Everything that anybody was told to be on
//! the record is kept, and [`World::check`] holds the log on disk against it.
//!
//! ```
//! # #[tokio::main] async fn main() {
//! let world = testkit::world::World::start().await;
//! let operator = world.operator();
//! operator.generate("content-key-1").await.unwrap();
//! let message = operator.encrypt("content-key-1", b"frame").await.unwrap();
//! assert_eq!(operator.decrypt(&message).await.unwrap(), b"frame");
//! world.check().intact();
//! # }
//! ```

mod caller;
mod checked;
mod enclave;
mod gateway;
mod island;
mod parent;
pub mod people;
mod process;
mod raw;
mod wires;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use client::{
    Client,
    kms_policy::PolicyRequest,
    log_memory::LogMemory,
    session::{Identity, Session, Settings},
};
use enclave_app::{Fatal, Serving, archive::LogKeeping, config, kms::KeyArn};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use transcode_confidential::{
    attestation::{ImagePolicy, Measurements},
    audit::{Receipt, segment::RecordKind},
    ids::LogId,
    keys::KeyRotationPolicy,
    protocol::{
        host::Credentials,
        policy::{Operation, Policy},
    },
    time::SystemClock,
};
use transport::Endpoint;

use crate::{
    clock::JumpingClock,
    disk::FaultyDisk,
    kms::{IssuedCredentials, MockKms, MockKmsOptions},
    nsm::{MockHypervisor, MockImage, MockNsm, Mode},
    parent::ScriptedParent,
    segments::{self, Segments},
};
pub use caller::{Acknowledged, Caller, key_id};
pub use checked::Checked;
use enclave::{RunningEnclave, Wiring};
pub use gateway::{Answered, RunningGateway};
use parent::{Parent, RunningProxy};
pub use people::PolicyAuthority;
use people::{ClientCa, grant};
pub use process::EnclaveProcess;
pub use raw::RawTls;
pub use wires::Wires;

/// Name of the deployment, as configuration and policies give it.
pub const DEPLOYMENT: &str = "studio";
/// The role of the instance that hosts the enclave.
pub const ROLE: &str = "enclave-host";
/// May do everything with every key.
pub const OPERATOR: &str = "operator";
/// May encrypt and decrypt with keys whose name starts with `content-`.
pub const TRANSCODER: &str = "transcoder";

/// How a world is made.
pub struct Plan {
    /// The image that the enclave is launched from at first.
    pub image: MockImage,
    /// The images that KMS gives keys to.
    pub kms_images: Vec<MockImage>,
    /// Images whose epochs the enclave accepts besides its own.
    pub predecessors: Vec<MockImage>,
    /// Limits in the measured configuration.
    pub limits: config::Limits,
    /// Policy of keys that are made without one.
    pub key_defaults: KeyRotationPolicy,
    /// When snapshots are taken and what is kept. Nothing need be kept, as tests have it.
    pub log: LogKeeping,
    /// Who is the parent.
    pub parent: ParentKind,
    /// Whether an interposer sits on every connection.
    pub interposed: bool,
}

/// Who is the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentKind {
    /// The real proxy, with the log on disk.
    Proxy,
    /// One that does as it is told, with the log in memory.
    Scripted,
    /// None of ours: proxy and enclave are processes that somebody else starts.
    Outside,
}

impl Default for Plan {
    fn default() -> Self {
        let image = MockImage::named("enclave");
        Self {
            kms_images: vec![image.clone()],
            image,
            predecessors: Vec::new(),
            limits: config::Limits { audit_wait_ms: 3000, policy_poll_secs: 1, ..config::Limits::default() },
            key_defaults: KeyRotationPolicy::default(),
            log: LogKeeping { keep_events: 0, keep_days: 0, ..LogKeeping::default() },
            parent: ParentKind::Proxy,
            interposed: false,
        }
    }
}

impl Plan {
    /// With a scripted parent, and little patience for it.
    pub fn scripted() -> Self {
        let mut plan = Self { parent: ParentKind::Scripted, ..Self::default() };
        plan.limits.audit_wait_ms = 400;
        plan
    }
}

/// An enclave that does not serve yet.
pub struct Booting(JoinHandle<Result<RunningEnclave, Fatal>>);

impl Booting {
    /// Whether it serves or has given up.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// The system.
pub struct World {
    dir: TempDir,
    /// Launches enclaves.
    pub hypervisor: MockHypervisor,
    /// KMS.
    pub kms: MockKms,
    /// The KMS key of the deployment.
    pub kms_key: KeyArn,
    /// The credentials that the parent hands out.
    pub credentials: IssuedCredentials,
    /// The client CA.
    pub ca: ClientCa,
    /// The policy authority.
    pub authority: PolicyAuthority,
    /// Every receipt that a caller was given.
    pub acknowledged: Acknowledged,
    /// Where the proxy keeps the log.
    pub disk: FaultyDisk,
    /// The parent's clock.
    pub parent_clock: JumpingClock,
    wires: Option<Wires>,
    images: Vec<MockImage>,
    config: config::Config,
    proxy_config: String,
    parent: Parent,
    enclave: Option<RunningEnclave>,
}

impl World {
    /// As most tests want it.
    pub async fn start() -> Self {
        Self::with(Plan::default()).await
    }

    /// With an enclave that serves.
    ///
    /// # Panics
    /// Where it does not boot.
    pub async fn with(plan: Plan) -> Self {
        let image = plan.image.clone();
        let mut world = Self::without_enclave(plan).await;
        world.launch(&image).await.expect("the enclave boots");
        world
    }

    /// Everything but the enclave.
    pub async fn without_enclave(plan: Plan) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let hypervisor = MockHypervisor::new(Arc::new(SystemClock));
        let kms = MockKms::start(MockKmsOptions::new(hypervisor.trust_root())).await;
        let kms_key = kms.create_key(json!({ "Statement": [] }));
        accept_images(&kms, &kms_key, &plan.kms_images);
        let credentials = kms.issue_credentials(ROLE, Duration::from_secs(6 * 3600));
        let ca = ClientCa::generate();
        let mut authority = PolicyAuthority::new(DEPLOYMENT);
        let document = authority.issue(|policy| {
            policy.grants = vec![
                grant(OPERATOR, "", &Operation::ALL),
                grant(TRANSCODER, "content-", &[Operation::Encrypt, Operation::Decrypt]),
            ];
        });
        let policies = dir.path().join("policies");
        std::fs::create_dir(&policies).expect("a directory");
        let wires = if plan.interposed { Some(Wires::lay(dir.path()).await) } else { None };
        let at = |socket: &str| wires::end(dir.path(), socket, wires.is_some());
        let proxy_config = proxy_config(dir.path(), &at("enclave"), &kms, &credentials);
        let (disk, parent_clock) = (FaultyDisk::default(), JumpingClock::default());
        let parent = match plan.parent {
            ParentKind::Proxy => {
                Parent::Proxy(RunningProxy::start(&proxy_config, disk.clone(), parent_clock.clone()).await)
            }
            ParentKind::Outside => Parent::Gone,
            ParentKind::Scripted => {
                let IssuedCredentials { access_key_id, secret_access_key, session_token, lifetime } =
                    credentials.clone();
                let told = Credentials::new(access_key_id, secret_access_key, session_token, lifetime.as_secs());
                Parent::Scripted(ScriptedParent::start(dir.path(), told, kms.address()).await)
            }
        };
        let config = config::Config {
            deployment: DEPLOYMENT.to_owned(),
            kms_key_arn: kms_key.clone(),
            policy_authority: authority.public_key(),
            client_ca: ca.certificate_pem().to_owned(),
            parent: config::Parent {
                host: at("host"),
                egress: at("egress"),
                listen: Endpoint::Unix(dir.path().join("enclave.sock")),
            },
            predecessors: plan.predecessors.iter().map(predecessor).collect(),
            anchors: Vec::new(),
            key_defaults: plan.key_defaults,
            limits: plan.limits,
            log: plan.log,
        };
        let mut images = vec![plan.image];
        images.extend(plan.predecessors);
        let world = Self {
            dir,
            hypervisor,
            kms,
            kms_key,
            credentials,
            ca,
            authority,
            acknowledged: Acknowledged::default(),
            disk,
            parent_clock,
            wires,
            images,
            config,
            proxy_config,
            parent,
            enclave: None,
        };
        world.offer_policy(&document);
        world
    }

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

    async fn run_enclave(&mut self, nsm: Arc<MockNsm>, config: config::Config) -> Result<(), Fatal> {
        let wiring = Wiring { config, root: self.hypervisor.trust_root(), kms_roots: self.kms.roots() };
        self.enclave = Some(RunningEnclave::start(wiring, nsm).await?);
        Ok(())
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
    /// Where it does not within thirty seconds.
    pub async fn enclave_ends(&mut self) -> Result<(), Fatal> {
        let enclave = self.enclave.take().expect("an enclave runs");
        tokio::time::timeout(Duration::from_secs(30), enclave.ended()).await.expect("the enclave ends")
    }

    /// Whether the enclave that was launched last runs on.
    pub fn enclave_lives(&self) -> bool {
        self.enclave.as_ref().is_some_and(RunningEnclave::lives)
    }

    /// Asks the enclave to stop, as SIGUSR1 to the proxy does. Says whether there is one that could be asked.
    pub fn ask_enclave_to_stop(&self) -> bool {
        matches!(&self.parent, Parent::Proxy(proxy) if proxy.stop_enclave())
    }

    /// Ends the proxy where it stands.
    pub async fn kill_proxy(&mut self) {
        if let Parent::Proxy(proxy) = std::mem::replace(&mut self.parent, Parent::Gone) {
            proxy.kill().await;
        }
    }

    /// Stops the proxy as SIGTERM does.
    pub async fn stop_proxy(&mut self) {
        if let Parent::Proxy(proxy) = std::mem::replace(&mut self.parent, Parent::Gone) {
            proxy.stop().await;
        }
    }

    /// Starts the proxy that was stopped or killed.
    pub async fn start_proxy(&mut self) {
        let (disk, clock) = (self.disk.clone(), self.parent_clock.clone());
        self.parent = Parent::Proxy(RunningProxy::start(&self.proxy_config, disk, clock).await);
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

    /// What the enclave says of itself since it serves.
    pub fn serving(&self) -> &Serving {
        &self.enclave.as_ref().expect("an enclave runs").serving
    }

    /// The NSM of the enclave.
    pub fn nsm(&self) -> &Arc<MockNsm> {
        &self.enclave.as_ref().expect("an enclave runs").nsm
    }

    /// The image that enclaves are launched from.
    pub fn image(&self) -> &MockImage {
        &self.images[0]
    }

    /// The measured configuration.
    pub const fn config(&self) -> &config::Config {
        &self.config
    }

    /// The proxy's configuration, TOML.
    pub fn proxy_config(&self) -> &str {
        &self.proxy_config
    }

    /// Changes the proxy's configuration, from its next start on.
    pub fn configure_proxy(&mut self, change: impl FnOnce(&str) -> String) {
        self.proxy_config = change(&self.proxy_config);
    }

    /// The directory of everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the proxy keeps the log.
    pub fn segments_dir(&self) -> PathBuf {
        self.dir.path().join("segments")
    }

    /// The log as it is stored now.
    pub fn segments(&self) -> Segments {
        match &self.parent {
            Parent::Scripted(parent) => parent.segments(),
            _ => segments::read_dir(&self.segments_dir()),
        }
    }

    /// The key that KMS wrapped last: what nobody but an enclave should ever learn.
    pub fn newest_key(&self) -> Vec<u8> {
        let segments = self.segments();
        let mut records = segments.values().flat_map(|bytes| segments::records(bytes));
        let wrapped = records.rfind(|(_, record)| record.kind == RecordKind::WrappedKey);
        let blob = segments::wrapped_blob(&wrapped.expect("a wrapped key is on the record").1.payload);
        self.kms.reveal(&blob).expect("KMS wrapped it")
    }

    /// Changes the stored log behind everybody's back. The proxy must not run.
    pub fn edit_segments(&self, change: impl FnOnce(&mut Segments)) {
        match &self.parent {
            Parent::Scripted(parent) => parent.edit(change),
            Parent::Gone => {
                let mut segments = self.segments();
                change(&mut segments);
                segments::write_dir(&self.segments_dir(), &segments);
            }
            Parent::Proxy(_) => panic!("stop the proxy first: it knows what it wrote"),
        }
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

    /// Changes the policy and hands it to the enclave.
    ///
    /// # Panics
    /// Where the enclave does not take it.
    pub async fn change_policy(&mut self, change: impl FnOnce(&mut Policy)) {
        let document = self.authority.issue(change);
        self.operator().client.put_policy(document).await.expect("the enclave takes the policy");
    }

    /// Has KMS give keys to these images, and to no others.
    pub fn kms_accepts(&self, images: &[MockImage]) {
        accept_images(&self.kms, &self.kms_key, images);
    }

    /// The image that the world began with, and its predecessors: what an auditor accepts.
    pub fn accepted_images(&self) -> ImagePolicy {
        let images = self.images.iter().enumerate().map(|(index, image)| image.expected(&format!("image {index}")));
        Measurements::new(images.collect()).expect("at least one image").into()
    }

    /// From here on auditors and new clients accept that image as well.
    pub fn accept_image(&mut self, image: &MockImage) {
        self.images.insert(0, image.clone());
    }

    /// May do everything.
    pub fn operator(&self) -> Caller {
        self.caller(OPERATOR)
    }

    /// May encrypt and decrypt with `content-` keys.
    pub fn transcoder(&self) -> Caller {
        self.caller(TRANSCODER)
    }

    /// A client with the identity `name`, with whatever was remembered under that name before.
    pub fn caller(&self, name: &str) -> Caller {
        self.caller_with(name, |_| {}, None)
    }

    /// As [`World::caller`], with settings that differ, and a log that is accepted in place of a known one.
    pub fn caller_with(&self, name: &str, change: impl FnOnce(&mut Settings), accept: Option<LogId>) -> Caller {
        let identity = Identity::from_pem(self.ca.identity_pem(name).as_bytes()).expect("a good identity");
        let mut settings = Settings::new(self.hypervisor.trust_root(), self.accepted_images(), Some(identity));
        settings.timeouts.response = Duration::from_secs(20);
        change(&mut settings);
        let session = Session::new(self.server(), settings);
        Caller::new(Client::new(session, self.memory(name), accept), self.acknowledged.clone())
    }

    /// A gateway that works for the identity `name`, on loopback, with settings that differ.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn gateway(&self, name: &str, change: impl FnOnce(&mut client::gateway::Settings)) -> RunningGateway {
        RunningGateway::start(self.caller(name).client, change).await
    }

    /// Where clients connect to.
    pub fn server(&self) -> Endpoint {
        match &self.parent {
            Parent::Scripted(_) => self.config.parent.listen.clone(),
            _ => wires::end(self.dir.path(), "relay", self.wires.is_some()),
        }
    }

    /// What sits on every connection.
    ///
    /// # Panics
    /// Where the plan did not ask for it.
    pub const fn wires(&self) -> &Wires {
        self.wires.as_ref().expect("an interposed world")
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

    /// What the clients of an identity remember.
    pub fn memory(&self, name: &str) -> LogMemory {
        LogMemory::new(self.dir.path().join("clients").join(name))
    }

    /// Verifies the stored log offline, and holds it against everything that anybody was told.
    pub fn check(&self) -> Checked {
        // Evidence first: what is told while the log is being read is not in it yet.
        let (receipts, checkpoints) = (self.acknowledged.receipts(), self.remembered());
        self.checked(&receipts, &checkpoints)
    }

    /// Waits until what the log says is as it should be: events that nobody waits for come a little later than answers.
    ///
    /// # Panics
    /// Where the log is not intact, or does not get there.
    pub async fn check_until(&self, arrived: impl Fn(&Checked) -> bool) -> Checked {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let checked = self.check().intact();
            if arrived(&checked) {
                return checked;
            }
            assert!(tokio::time::Instant::now() < deadline, "it never gets onto the record: {:#?}", checked.events);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As [`World::check`] for somebody who holds nothing.
    pub fn check_unanchored(&self) -> Checked {
        self.checked(&[], &[])
    }

    fn checked(&self, receipts: &[Receipt], checkpoints: &[String]) -> Checked {
        let trusted = (self.hypervisor.trust_root(), self.accepted_images());
        Checked::of(&self.segments(), trusted, receipts, checkpoints)
    }

    /// The checkpoints of this log that clients remember.
    fn remembered(&self) -> Vec<String> {
        let (Some(log_id), _) = segments::sealed(&self.segments()) else { return Vec::new() };
        let Ok(clients) = std::fs::read_dir(self.dir.path().join("clients")) else { return Vec::new() };
        let memories = clients.map(|entry| LogMemory::new(entry.expect("a readable directory").path()));
        let known = memories.filter_map(|memory| memory.recall(log_id).expect("a readable memory"));
        known.map(|known| known.checkpoint().to_owned()).collect()
    }
}

/// What the client's own generator writes for these images.
fn accept_images(kms: &MockKms, key: &KeyArn, images: &[MockImage]) {
    let images = images.iter().enumerate().map(|(index, image)| image.expected(&format!("image {index}")));
    let measurements = Measurements::new(images.collect()).expect("at least one image");
    let administrator = "arn:aws:iam::111122223333:role/key-administrator";
    let request = PolicyRequest::new(&measurements, key.as_str(), &kms.role_arn(ROLE), &[administrator]);
    let request = request.expect("good names");
    kms.put_key_policy(key, request.key_policy().expect("a policy"));
    kms.put_role_policy(ROLE, request.role_policy().expect("a policy"));
}

fn predecessor(image: &MockImage) -> config::Predecessor {
    let [pcr0, pcr1, pcr2] = image.identity.map(|value| value.to_string());
    config::Predecessor { label: "predecessor".to_owned(), pcr0, pcr1, pcr2 }
}

fn proxy_config(dir: &Path, enclave: &Endpoint, kms: &MockKms, credentials: &IssuedCredentials) -> String {
    let (dir, host, address) = (dir.display(), kms.endpoint_host(), kms.address());
    let IssuedCredentials { access_key_id, secret_access_key, session_token, .. } = credentials;
    format!(
        r#"
enclave = "{enclave}"
drain = "2s"

[relay]
listen = ["unix:{dir}/relay.sock"]

[egress]
listen = "unix:{dir}/egress.sock"
allow = ["{host}:443"]
[egress.resolve]
"{host}:443" = "tcp:{address}"

[host]
listen = "unix:{dir}/host.sock"

[store]
directory = "{dir}/segments"
reserve = 0

[credentials]
source = "static"
access_key_id = "{access_key_id}"
secret_access_key = "{secret_access_key}"
session_token = "{session_token}"

[policy]
path = "{dir}/policies"
restore = "{dir}/restore.cose"

[admin]
listen = "unix:{dir}/admin.sock"
"#
    )
}
