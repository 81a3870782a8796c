use std::sync::{Arc, OnceLock};

use testkit::{
    nsm::{MockHypervisor, MockImage},
    world::{Checked, PolicyAuthority},
};
use tokio_util::sync::CancellationToken;
use transcode_confidential::{audit::Receipt, keys::KeyRotationPolicy};
use transport::Endpoint;

use super::core::{DEPLOYMENT, Writing, kms_key};
use crate::{
    Parts,
    archive::{Archive, LogKeeping},
    boot::{BootError, Booted, boot},
    config::{self, Config},
    custody::Custody,
    grants::Grants,
    host::Parent,
    kms::Service,
    runtime::{task::Island, time::Played},
};

/// What outlives an enclave: the parent, KMS, the authority, the hypervisor.
pub struct House {
    /// The parent.
    pub parent: Parent,
    /// KMS.
    pub kms: Service,
    /// The policy authority.
    pub authority: PolicyAuthority,
    image: MockImage,
}

/// An enclave that has booted by the code that ships: everything but the network in front of it.
pub struct Enclave {
    /// The keys and the ledger.
    pub custody: Arc<Custody>,
    /// The policy in force.
    pub grants: Arc<Grants>,
    /// Snapshots and pruning.
    pub archive: Arc<Archive>,
    /// Where its tasks live.
    pub island: Island,
    writing: Writing,
}

impl House {
    /// With an empty store.
    #[allow(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self {
            parent: Parent::of_this_play(),
            kms: Service::default(),
            authority: PolicyAuthority::new(DEPLOYMENT),
            image: MockImage::named("enclave"),
        }
    }

    /// Boots an enclave. Nothing is kept or held back by its policy of retention.
    ///
    /// # Errors
    /// [`BootError`].
    pub async fn boot(&self) -> Result<Enclave, BootError> {
        let island = Island::new();
        let parts = self.parts();
        let (deployment, authority) = (parts.config.deployment.clone(), parts.config.policy_authority);
        let booting = island.spawn(async move {
            let (stop, abandon) = (CancellationToken::new(), CancellationToken::new());
            boot(&parts, &stop, &abandon).await
        });
        let booted = match booting.await.expect("no panic in the enclave") {
            Ok(booted) => booted,
            Err(error) => {
                island.kill();
                return Err(error);
            }
        };
        let Booted { custody, link, writer, policy, .. } = booted;
        let grants = Arc::new(Grants::new(deployment, authority, policy.as_deref()));
        let keeping = LogKeeping { keep_events: 0, keep_days: 0, ..LogKeeping::default() };
        let archive = Arc::new(Archive::new(Arc::clone(&custody), link, keeping));
        Ok(Enclave { custody, grants, archive, island, writing: writer })
    }

    /// The stored log as an auditor sees it who holds these receipts.
    pub fn checked(&self, receipts: &[Receipt]) -> Checked {
        let trusted = (hypervisor().trust_root(), self.image.measurements("enclave").into());
        Checked::of(&self.parent.segments(), trusted, receipts, &[])
    }

    fn parts(&self) -> Parts {
        let endpoint = |name: &str| Endpoint::Unix(format!("/played/{name}").into());
        let config = Config {
            deployment: DEPLOYMENT.to_owned(),
            kms_key_arn: kms_key(),
            policy_authority: self.authority.public_key(),
            client_ca: String::new(),
            parent: config::Parent { host: endpoint("host"), egress: endpoint("egress"), listen: endpoint("listen") },
            predecessors: Vec::new(),
            anchors: Vec::new(),
            key_defaults: KeyRotationPolicy::default(),
            limits: config::Limits { audit_backlog: 16, ..config::Limits::default() },
            log: enclave_app::archive::LogKeeping::default(),
        };
        Parts {
            config,
            nsm: hypervisor().launch(&self.image),
            attestation_root: hypervisor().trust_root(),
            kms_roots: self.kms.clone(),
            boottime: Arc::new(Played),
        }
    }
}

impl Enclave {
    /// Ends it where it stands.
    pub fn kill(self) {
        self.island.kill();
    }

    /// Ends it well.
    ///
    /// # Panics
    /// Where it does not.
    pub async fn stop(self) {
        self.archive.at_end();
        self.custody.ledger.close();
        let ended = self.writing.await.expect("no panic in the writer");
        assert_eq!(ended, Ok(()), "the writer ends well");
        self.island.kill();
    }
}

/// One hypervisor for every play: making its root takes longer than a play.
fn hypervisor() -> &'static MockHypervisor {
    static HYPERVISOR: OnceLock<MockHypervisor> = OnceLock::new();
    HYPERVISOR.get_or_init(|| MockHypervisor::new(Arc::new(Played)))
}
