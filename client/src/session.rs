//! Sessions with an enclave: first it attests itself, then it gets to know the client, then requests are sent.
//!
//! [`Session`] is the way in; it attests, pins, pools and renews. Underneath, [`Connection`] carries in its type what is
//! known about the peer: a [`Connection<Attested>`] comes from an [`Attestation`] only, and that from a verified document
//! only.

mod caller;
mod connection;
mod error;
mod identity;
mod pool;
mod tls;
mod transport;

use std::{sync::Arc, time::Duration};

use ::transport::Endpoint;
use tokio::sync::Mutex;
use transcode_confidential::{
    attestation::{ImagePolicy, Live, TrustRoot, VerifiedDocument},
    entropy::{Entropy, OsEntropy},
    ids::{Epoch, LogId},
    time::{Clock, SystemClock, Timestamp},
};

pub(crate) use identity::common_name;
pub use {
    caller::{CallerAttestor, CallerAttestorError, CallerDocument, CallerKey},
    connection::{Attested, Connection, RequestBody, SendError, Unattested, empty},
    error::SessionError,
    identity::{Identity, IdentityError},
    tls::ServerKey,
};

use pool::Pool;

/// What a session believes, shows and waits for.
#[derive(Clone)]
pub struct Settings {
    /// The root that attestation documents must lead to.
    pub root: TrustRoot,
    /// The images that are accepted.
    pub image: ImagePolicy,
    /// The client certificate, shown to attested enclaves only.
    pub identity: Option<Identity>,
    /// How long an attestation is relied on before the enclave is asked for a new one.
    pub max_age: Duration,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// This client's clock.
    pub clock: Arc<dyn Clock>,
    /// Where nonces come from.
    pub entropy: Arc<dyn Entropy>,
    /// Where this client is an enclave itself: attests it on every new connection.
    pub caller: Option<Arc<dyn CallerAttestor>>,
}

/// How long to wait before giving a peer up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// For the transport's connection.
    pub connect: Duration,
    /// For the TLS handshake on it.
    pub handshake: Duration,
    /// For the head of a response, and again for its body.
    pub response: Duration,
    /// For any progress at all while content streams.
    pub idle: Duration,
}

impl Settings {
    /// How long an attestation is relied on, unless said otherwise.
    pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(3600);

    /// The system's clock and randomness, and default times.
    pub fn new(root: TrustRoot, image: ImagePolicy, identity: Option<Identity>) -> Self {
        Self {
            root,
            image,
            identity,
            max_age: Self::DEFAULT_MAX_AGE,
            timeouts: Timeouts::default(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            caller: None,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            response: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        }
    }
}

/// That an enclave of an accepted image holds a TLS key. Made by [`Connection::attest`] only.
#[derive(Debug)]
pub struct Attestation {
    document: VerifiedDocument<Live>,
    key: ServerKey,
    log_id: LogId,
    epoch: Epoch,
    verified_at: Timestamp,
}

impl Attestation {
    /// The verified document.
    pub const fn document(&self) -> &VerifiedDocument<Live> {
        &self.document
    }

    /// The attested TLS key.
    pub const fn key(&self) -> &ServerKey {
        &self.key
    }

    /// The log of this enclave.
    pub const fn log_id(&self) -> LogId {
        self.log_id
    }

    /// The epoch that it writes.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// When it was verified, by this client's clock.
    pub const fn verified_at(&self) -> Timestamp {
        self.verified_at
    }
}

/// Attested connections to one server, as many as are needed at a time. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    settings: Settings,
    /// The newest attestation. Held locked while a new one is asked for, so that many requests ask once.
    attestation: Mutex<Option<Arc<Attestation>>>,
    pool: Pool,
}

impl Session {
    /// A session that connects when it is first used.
    pub fn new(endpoint: Endpoint, settings: Settings) -> Self {
        Self { shared: Arc::new(Shared { endpoint, settings, attestation: Mutex::new(None), pool: Pool::default() }) }
    }

    /// The server.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// What it believes, shows and waits for.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// A connection to the attested enclave: an idle one, or a new one. Where the server's key is no longer the attested
    /// one, because the enclave was started anew, it is attested anew, once.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn connection(&self) -> Result<Connection<Attested>, SessionError> {
        let attestation = self.attestation().await?;
        if let Some(mut connection) = self.shared.pool.take(attestation.key()) {
            connection.renew(attestation);
            return Ok(connection);
        }
        match self.open(attestation.clone()).await {
            Err(SessionError::KeyChanged) => self.open(self.attest_instead_of(&attestation).await?).await,
            result => result,
        }
    }

    /// Gives a connection back whose last response was read to its end.
    pub fn give_back(&self, connection: Connection<Attested>) {
        self.shared.pool.put(connection);
    }

    /// The attestation that new connections rely on; asks for one where there is none or it is too old.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn attestation(&self) -> Result<Arc<Attestation>, SessionError> {
        let mut current = self.shared.attestation.lock().await;
        let now = self.shared.settings.clock.now();
        match &*current {
            Some(attestation) if now.since(attestation.verified_at) < self.shared.settings.max_age => {
                Ok(attestation.clone())
            }
            _ => {
                *current = None;
                let fresh = self.attest().await?;
                Ok(current.insert(fresh).clone())
            }
        }
    }

    async fn attest_instead_of(&self, outdated: &Arc<Attestation>) -> Result<Arc<Attestation>, SessionError> {
        let mut current = self.shared.attestation.lock().await;
        match &*current {
            Some(attestation) if !Arc::ptr_eq(attestation, outdated) => Ok(attestation.clone()),
            _ => {
                *current = None;
                let fresh = self.attest().await?;
                Ok(current.insert(fresh).clone())
            }
        }
    }

    async fn attest(&self) -> Result<Arc<Attestation>, SessionError> {
        let connection = Connection::<Unattested>::open(&self.shared.endpoint, &self.shared.settings.timeouts).await?;
        Ok(Arc::new(connection.attest(&self.shared.settings).await?))
    }

    async fn open(&self, attestation: Arc<Attestation>) -> Result<Connection<Attested>, SessionError> {
        let settings = &self.shared.settings;
        let mut connection = Connection::<Attested>::open(&self.shared.endpoint, attestation, settings).await?;
        if let Some(caller) = &settings.caller {
            connection.attest_caller(&**caller, &settings.timeouts).await?;
        }
        Ok(connection)
    }
}
