//! A mock of AWS KMS: a real server on loopback, outside the enclave, that speaks the real protocol over TLS.
//!
//! It verifies attestation documents with the production verifier, evaluates key and role policies as AWS does, checks
//! request signatures, and seals replies to recipients in AWS's shape. It can be told to misbehave. What it is not:
//! AWS's own CMS encoder, its error texts to the letter, or its throttling.
//!
//! ```no_run
//! # async fn example(root: transcode_confidential::attestation::TrustRoot, policy: serde_json::Value) {
//! use testkit::kms::{MockKms, MockKmsOptions};
//!
//! let kms = MockKms::start(MockKmsOptions::new(root)).await;
//! let key = kms.create_key(policy);
//! let credentials = kms.issue_credentials("enclave", std::time::Duration::from_secs(3600));
//! # }
//! ```

pub mod authority;
pub mod ber;
pub mod fault;
pub mod policy;

mod api;
mod caller;
mod dial;
mod journal;
mod key;
mod operation;
mod recipient;
mod server;
mod signature;
mod state;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use enclave_app::kms::KeyArn;
use rustls::RootCertStore;
use serde_json::Value;
use transcode_confidential::{
    attestation::TrustRoot,
    time::{Clock, SystemClock},
};

use self::{ber::ContentShape, fault::Fault, policy::Policy, state::State};
pub use self::{
    caller::{IssuedCredentials, MockCredentials},
    dial::CountingDialer,
    journal::LoggedRequest,
    key::KeyState,
};

/// How a mock KMS is set up.
pub struct MockKmsOptions {
    /// The root that attestation documents must chain to: the mock NSM's.
    pub root: TrustRoot,
    /// The region that the endpoint serves.
    pub region: String,
    /// The account that owns keys and roles.
    pub account: String,
    /// KMS's clock.
    pub clock: Arc<dyn Clock>,
    /// Where keys, credentials and certificate authority are kept over a restart; nowhere by default.
    pub state_file: Option<PathBuf>,
    /// Years in which the server's certificate is valid.
    pub certificate_years: std::ops::Range<i32>,
}

impl MockKmsOptions {
    /// A KMS in `eu-west-1` on the system's clock that forgets everything.
    pub fn new(root: TrustRoot) -> Self {
        Self {
            root,
            region: "eu-west-1".to_owned(),
            account: "111122223333".to_owned(),
            clock: Arc::new(SystemClock),
            state_file: None,
            certificate_years: 2020..2120,
        }
    }
}

/// A running mock KMS. It ends when dropped.
pub struct MockKms {
    service: Arc<Service>,
    address: SocketAddr,
    acceptor: tokio::task::JoinHandle<()>,
}

/// What all connections share.
struct Service {
    root: TrustRoot,
    region: String,
    account: String,
    clock: Arc<dyn Clock>,
    state_file: Option<PathBuf>,
    state: Mutex<State>,
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }

    /// Changes something that outlives a restart.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        if let Some(path) = &self.state_file {
            state.save(path);
        }
        result
    }
}

impl MockKms {
    /// Listens on a loopback port of its own.
    pub async fn start(options: MockKmsOptions) -> Self {
        let MockKmsOptions { root, region, account, clock, state_file, certificate_years } = options;
        let mut state = state_file.as_deref().and_then(State::load).unwrap_or_else(State::new);
        let host = format!("kms.{region}.amazonaws.com");
        let tls = state.authority.server_config(&host, certificate_years);
        state.journal.clear();
        let service = Arc::new(Service { root, region, account, clock, state_file, state: Mutex::new(state) });
        service.change(|_| ());
        let (address, acceptor) = server::start(service.clone(), tls).await;
        Self { service, address, acceptor }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The region's endpoint, as clients name it.
    pub fn endpoint_host(&self) -> String {
        format!("kms.{}.amazonaws.com", self.service.region)
    }

    /// The roots that its certificate chains to.
    pub fn roots(&self) -> RootCertStore {
        self.service.state().authority.roots()
    }

    /// The certificate authority in PEM.
    pub fn authority_pem(&self) -> String {
        self.service.state().authority.certificate_pem()
    }

    /// A way to it that counts connections.
    pub fn dialer(&self) -> Arc<CountingDialer> {
        Arc::new(CountingDialer::new(self.address))
    }

    /// Makes a key under a key policy.
    ///
    /// # Panics
    /// Where AWS would refuse the policy as malformed.
    pub fn create_key(&self, policy: Value) -> KeyArn {
        let policy = Policy::parse(policy).expect("a well-formed key policy");
        let Service { region, account, .. } = &*self.service;
        self.service.change(|state| state.create_key(region, account, policy))
    }

    /// Replaces a key policy.
    ///
    /// # Panics
    /// Where AWS would refuse the policy as malformed.
    pub fn put_key_policy(&self, key: &KeyArn, policy: Value) {
        let policy = Policy::parse(policy).expect("a well-formed key policy");
        self.service.change(|state| state.key_mut(key.key_id()).expect("the key exists").policy = policy);
    }

    /// Enables, disables or schedules the deletion of a key.
    pub fn set_key_state(&self, key: &KeyArn, to: KeyState) {
        self.service.change(|state| state.key_mut(key.key_id()).expect("the key exists").state = to);
    }

    /// Sets the policy of the role `name`; without one a role may do only what key policies grant it by name.
    ///
    /// # Panics
    /// Where AWS would refuse the policy as malformed.
    pub fn put_role_policy(&self, name: &str, policy: Value) {
        let policy = Policy::parse(policy).expect("a well-formed role policy");
        self.service.change(|state| state.role_policies.insert(name.to_owned(), policy));
    }

    /// The ARN of the role `name`.
    pub fn role_arn(&self, name: &str) -> String {
        format!("arn:aws:iam::{}:role/{name}", self.service.account)
    }

    /// Fresh session credentials of the role `name`.
    pub fn issue_credentials(&self, name: &str, lifetime: Duration) -> IssuedCredentials {
        let expires = self.service.clock.now().plus(lifetime);
        self.service.change(|state| state.issue_credentials(name, lifetime, expires))
    }

    /// Has credentials expire now, whatever was said about their lifetime.
    pub fn expire_credentials(&self, access_key_id: &str) {
        let now = self.service.clock.now();
        self.service.change(|state| state.expire_credentials(access_key_id, now));
    }

    /// Misbehaves in the next `times` calls. Faults queue up.
    pub fn fail_next(&self, times: usize, fault: Fault) {
        self.service.state().faults.extend(std::iter::repeat_n(fault, times));
    }

    /// Takes back faults that have not occurred yet.
    pub fn clear_faults(&self) {
        self.service.state().faults.clear();
    }

    /// Seals replies in this shape from now on.
    pub fn set_content_shape(&self, shape: ContentShape) {
        self.service.state().shape = shape;
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.service.state().journal.clone()
    }

    /// The plaintext of a key that this KMS wrapped: what only an attested enclave should ever learn.
    pub fn reveal(&self, wrapped: &[u8]) -> Option<Vec<u8>> {
        self.service.state().reveal(wrapped)
    }

    /// The plaintexts of all keys that this KMS wrapped and can still unwrap.
    pub fn given_out(&self) -> Vec<Vec<u8>> {
        self.service.state().given_out()
    }
}

impl Drop for MockKms {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}
