//! KMS, in memory. A wrapped key is the number of what KMS remembers of it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use enclave_app::kms::DataKey as Made;
pub use enclave_app::kms::{
    CredentialSource, CredentialsError, EgressDialer, KeyArn, KmsError, KmsLimits, KmsSetupError, SessionCredentials,
    WrapContext,
};
use transcode_confidential::{entropy::OsEntropy, secret::KeyMaterial, time::Clock};
use zeroize::Zeroizing;

use crate::{host::HostCredentials, metrics::Metrics, nsm::NsmHandle, runtime::task};

/// As [`enclave_app::kms::DataKey`].
pub type DataKey = Made;

/// What KMS is: it outlives every enclave.
#[derive(Clone, Default)]
pub struct Service(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    wrapped: Vec<(BTreeMap<String, String>, [u8; 32])>,
    failing: Option<Failing>,
}

/// How KMS fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// It does not answer.
    Down,
    /// It asks for patience.
    Throttling,
    /// It gives the plaintext as well: nothing that KMS does.
    Leaking,
    /// It unwraps another key than was wrapped.
    Confused,
}

impl Service {
    /// Fails from now on, or works again.
    pub fn fail(&self, how: Option<Failing>) {
        self.0.lock().unwrap().failing = how;
    }

    fn check(&self) -> Result<Option<Failing>, KmsError> {
        match self.0.lock().unwrap().failing {
            Some(Failing::Down) => Err(KmsError::TimedOut),
            Some(Failing::Throttling) => Err(KmsError::Throttled),
            Some(Failing::Leaking) => Err(KmsError::PlaintextReply),
            other => Ok(other),
        }
    }
}

/// As [`enclave_app::kms::KmsConfig`], with KMS itself for the way to it.
#[allow(missing_docs, reason = "as there")]
pub struct KmsConfig {
    pub key: KeyArn,
    pub roots: Service,
    pub dialer: Arc<EgressDialer>,
    pub credentials: Arc<HostCredentials>,
    pub clock: Arc<dyn Clock>,
    pub documents: Arc<NsmHandle>,
    pub limits: KmsLimits,
}

/// As [`enclave_app::kms::KmsClient`].
pub struct KmsClient {
    key: KeyArn,
    service: Service,
}

impl KmsClient {
    /// A client.
    ///
    /// # Errors
    /// None.
    pub fn new(config: KmsConfig) -> Result<Self, KmsSetupError> {
        Ok(Self::of(config.key, config.roots))
    }

    /// A client of that KMS.
    pub const fn of(key: KeyArn, service: Service) -> Self {
        Self { key, service }
    }

    /// The same.
    #[must_use]
    pub fn counting(self, _metrics: Arc<Metrics>) -> Self {
        self
    }

    /// The key that is used.
    pub const fn key(&self) -> &KeyArn {
        &self.key
    }

    /// Has KMS make a key.
    ///
    /// # Errors
    /// [`KmsError`].
    pub async fn generate_data_key(&self, context: &WrapContext) -> Result<DataKey, KmsError> {
        self.answer().await?;
        let plaintext = KeyMaterial::generate(&OsEntropy).unwrap();
        let mut kept = self.service.0.lock().unwrap();
        kept.wrapped.push((context.pairs(), *plaintext.expose()));
        let ciphertext = (kept.wrapped.len() as u64).to_be_bytes().to_vec();
        Ok(DataKey { plaintext, ciphertext })
    }

    /// Has KMS unwrap a key.
    ///
    /// # Errors
    /// [`KmsError`].
    pub async fn decrypt(&self, wrapped: &[u8], context: &WrapContext) -> Result<KeyMaterial, KmsError> {
        let failing = self.answer().await?;
        let number = u64::from_be_bytes(wrapped.try_into().map_err(|_| KmsError::WrappedKeyRefused)?);
        let kept = self.service.0.lock().unwrap();
        let found = kept.wrapped.get(number as usize - 1).filter(|(pairs, _)| *pairs == context.pairs());
        let (_, key) = found.ok_or(KmsError::WrappedKeyRefused)?;
        let mut key = *key;
        key[0] ^= u8::from(failing == Some(Failing::Confused));
        Ok(KeyMaterial::from_bytes(key))
    }

    /// Has KMS draw random bytes.
    ///
    /// # Errors
    /// [`KmsError`].
    pub async fn generate_random(&self, count: u16) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        self.answer().await?;
        Ok(Zeroizing::new(vec![7; usize::from(count)]))
    }

    async fn answer(&self) -> Result<Option<Failing>, KmsError> {
        task::turn();
        self.service.check()
    }
}

impl fmt::Debug for KmsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KmsClient({})", self.key)
    }
}
