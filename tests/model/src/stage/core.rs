use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use testkit::{
    nsm::{MockHypervisor, MockImage, MockNsm},
    world::{PolicyAuthority, people::grant},
};
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    audit::{Chain, CreationReason},
    fold::Fold,
    ids::{Epoch, KeyId, LogId},
    keys::KeyRotationPolicy,
    message::EncryptionContext,
    protocol::policy::Operation,
    secret::KeyMaterial,
    signature::SigningKey,
};
use transport::Endpoint;

use super::Record;
use crate::{
    attestor::SelfAttestor,
    clock::EnclaveClock,
    custody::{Asked, Changed, Custody, CustodyError, Purpose, UseGrant},
    grants::{Grants, Permit},
    host::{HostLink, Parent},
    keyring::Keyring,
    kms::{KeyArn, KmsClient, Service},
    ledger::{Ledger, LedgerFatal, LedgerWriter, Patience, Store},
    nsm::NsmHandle,
    runtime::{
        sync::watch,
        task::{Island, JoinHandle},
        time::Played,
    },
};

/// The deployment.
pub(super) const DEPLOYMENT: &str = "studio";
/// May do everything.
pub const OPERATOR: &str = "operator";
/// May encrypt and decrypt.
pub const TRANSCODER: &str = "transcoder";

/// Ledger, custody and grants of an enclave that has booted somehow: what decides, without what surrounds it.
#[derive(Clone)]
pub struct Core {
    /// Where its tasks live.
    pub island: Island,
    /// The parent.
    pub parent: Parent,
    /// KMS.
    pub kms: Service,
    /// The keys and the ledger.
    pub custody: Arc<Custody>,
    /// The policy in force.
    pub grants: Arc<Grants>,
    /// The key of the epoch.
    pub epoch_key: Arc<SigningKey>,
    log_id: LogId,
}

/// The task that writes the log.
pub type Writing = JoinHandle<Result<(), LedgerFatal>>;

impl Core {
    /// Begins a log with room for so many events that are not durable. Gives the policy authority and the writer as well.
    pub async fn start(backlog: u32) -> (Self, PolicyAuthority, Writing) {
        let island = Island::new();
        let starting = island.spawn(async move {
            let (parent, kms) = (Parent::of_this_play(), Service::default());
            let log_id = LogId::new([7; 16]);
            let mut chain = Chain::new();
            chain.open_epoch(Epoch(1));
            let patience = Patience { wait: Duration::from_secs(10), backlog };
            let ledger = Ledger::new((log_id, "enclave".to_owned()), chain, Fold::new(), Arc::new(Played), patience);
            let endpoint = Endpoint::Unix("/played".into());
            let store = Store { endpoint, session: [1; 16], stop: CancellationToken::new() };
            let (link, _welcome) =
                HostLink::open(&store.endpoint, store.session, Duration::ZERO, &store.stop).await.expect("a parent");
            let (links, _follow) = watch::channel(Some(Arc::new(link)));
            let epoch_key = Arc::new(SigningKey::from_seed(&KeyMaterial::from_bytes([9; 32])).unwrap());
            let writer = LedgerWriter::new(ledger.clone(), Arc::clone(&epoch_key), store, links);
            let writing = crate::spawn(writer.run(CancellationToken::new()));
            let (authority, document) = policy();
            let grants = Grants::new(DEPLOYMENT.to_owned(), authority.public_key(), Some(&document));
            let custody = custody(ledger, &kms);
            let core = Self { island, parent, kms, custody, grants: Arc::new(grants), epoch_key, log_id };
            (core, authority, writing)
        });
        starting.await.unwrap()
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.custody.ledger
    }

    /// A permit that holds now.
    pub fn permit(&self, principal: &str, operation: Operation, key: &str) -> Permit {
        self.grants.permit(&principal.parse().unwrap(), operation, &id(key)).expect("it is granted")
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub async fn generate(&self, key: &str, max_uses: u64) -> Result<Changed, CustodyError> {
        let policy = KeyRotationPolicy { max_uses, require_attestation: false, ..KeyRotationPolicy::default() };
        let permit = self.permit(OPERATOR, Operation::Generate, key);
        self.custody.generate(&Asked { permit: &permit, expected: None, tag: None }, policy).await
    }

    /// Rotates a key.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub async fn rotate(&self, key: &str) -> Result<Changed, CustodyError> {
        let permit = self.permit(OPERATOR, Operation::Rotate, key);
        let asked = Asked { permit: &permit, expected: None, tag: None };
        self.custody.rotate(Some(&asked), &id(key), CreationReason::Manual).await
    }

    /// Uses a key once.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub async fn encrypt(&self, permit: &Permit) -> Result<UseGrant, CustodyError> {
        let context = EncryptionContext::new();
        let operation = transcode_confidential::audit::KeyOperation::Encrypt;
        self.custody.begin_use(&Purpose { permit, operation, context: &context, content_id: None }).await
    }

    /// Ends the log well, and reads what is on disk.
    pub async fn end(self, writing: Writing) -> Record {
        self.ledger().close();
        assert_eq!(writing.await.expect("no panic in the writer"), Ok(()));
        let record = Record::of(self.log_id, &self.parent.segments());
        self.ledger().with_fold(|fold, _| assert_eq!(*fold, record.fold, "what is on disk comes to what is in memory"));
        self.island.kill();
        record
    }
}

/// A key id.
pub fn id(text: &str) -> KeyId {
    text.parse().expect("a key id")
}

fn policy() -> (PolicyAuthority, Vec<u8>) {
    let mut authority = PolicyAuthority::new(DEPLOYMENT);
    let document = authority.issue(|policy| {
        policy.grants = vec![
            grant(OPERATOR, "", &Operation::ALL),
            grant(TRANSCODER, "", &[Operation::Encrypt, Operation::Decrypt]),
        ];
    });
    (authority, document)
}

fn custody(ledger: Ledger, kms: &Service) -> Arc<Custody> {
    static NSM: OnceLock<(MockHypervisor, Arc<MockNsm>)> = OnceLock::new();
    let image = MockImage::named("enclave");
    let (hypervisor, nsm) = NSM.get_or_init(|| {
        let hypervisor = MockHypervisor::new(Arc::new(Played));
        let nsm = hypervisor.launch(&image);
        (hypervisor, nsm)
    });
    let clock = Arc::new(EnclaveClock::new(Arc::new(Played)));
    let handle = NsmHandle::start(Arc::clone(nsm)).unwrap();
    let own = image.measurements("own").into();
    let (root, log_id) = (hypervisor.trust_root(), ledger.log_id());
    let attestor = SelfAttestor::new(handle, root, own, Arc::clone(&clock), log_id, Epoch(1));
    let client = KmsClient::of(kms_key(), kms.clone());
    let defaults = KeyRotationPolicy::default();
    Arc::new(Custody::new(ledger, Keyring::default(), client, attestor, clock, Epoch(1), defaults))
}

/// The KMS key of every play.
pub(super) fn kms_key() -> KeyArn {
    "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab".parse().expect("an ARN")
}
