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

mod assembly;
mod caller;
mod checked;
mod clients;
mod enclave;
mod gateway;
mod host;
mod island;
mod launch;
mod parent;
pub mod people;
mod plan;
mod process;
mod raw;
mod record;
mod wires;

use std::path::Path;

use enclave_app::{config, kms::KeyArn};
use tempfile::TempDir;
use transcode_confidential::{
    attestation::{ImagePolicy, Measurements},
    protocol::policy::Policy,
};

use crate::{
    clock::JumpingClock,
    disk::FaultyDisk,
    kms::{IssuedCredentials, MockKms},
    nsm::{MockHypervisor, MockImage},
};
pub use caller::{Acknowledged, Caller, key_id};
pub use checked::Checked;
use enclave::RunningEnclave;
pub use gateway::{Answered, RunningGateway};
pub use launch::Booting;
use parent::Parent;
use people::ClientCa;
pub use people::PolicyAuthority;
pub use plan::{ParentKind, Plan};
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

    /// The image that enclaves are launched from.
    pub fn image(&self) -> &MockImage {
        &self.images[0]
    }

    /// The measured configuration.
    pub const fn config(&self) -> &config::Config {
        &self.config
    }

    /// The directory of everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
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
        assembly::accept_images(&self.kms, &self.kms_key, images);
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

    /// What sits on every connection.
    ///
    /// # Panics
    /// Where the plan did not ask for it.
    pub const fn wires(&self) -> &Wires {
        self.wires.as_ref().expect("an interposed world")
    }
}
