//! The operations, each attested.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc, time::Duration};

use aws_sdk_kms::{
    Client,
    config::{BehaviorVersion, Config, IdentityCache, Region, StalledStreamProtectionConfig},
    config::{retry::RetryConfig, timeout::TimeoutConfig},
    primitives::Blob,
    types::{DataKeySpec, EncryptionAlgorithmSpec, KeyEncryptionMechanism, RecipientInfo},
};
use rustls::RootCertStore;
use thiserror::Error;
use tokio::sync::Semaphore;
use transcode_confidential::{
    attestation::UserData, ids::LogId, protocol::metrics::Metric, secret::KeyMaterial, time::Clock,
};
use zeroize::Zeroizing;

use super::{
    arn::KeyArn,
    clock::EnclaveTime,
    cms::{self, EnvelopeError},
    connector,
    context::{WrapContext, request_hash},
    credentials::{CredentialSource, HeldCredentials},
    dial::Dial,
    document::{DocumentRequest, DocumentSource},
    error::{KmsError, Presented},
    failure,
    recipient::{RecipientKey, RecipientKeys},
    reply::{CheckedReply, MAX_WRAPPED, Reply},
};
use crate::metrics::Metrics;

/// Everything that the client takes from the world.
pub struct KmsConfig {
    /// The one key that is ever used; region and endpoint follow from it.
    pub key: KeyArn,
    /// The certificate authorities that the endpoint may use: [`super::roots::amazon`] in production.
    pub roots: RootCertStore,
    /// The way to the endpoint.
    pub dialer: Arc<dyn Dial>,
    /// The role's credentials.
    pub credentials: Arc<dyn CredentialSource>,
    /// The enclave's clock: for certificates, signatures, and the credentials' lifetime.
    pub clock: Arc<dyn Clock>,
    /// Attestation documents.
    pub documents: Arc<dyn DocumentSource>,
    /// How much and how long.
    pub limits: KmsLimits,
}

/// How much and how long.
#[derive(Debug, Clone)]
pub struct KmsLimits {
    /// Calls at one time; more wait.
    pub concurrency: usize,
    /// Attempts at one call, the first included. Between them lies an exponential backoff with jitter.
    pub attempts: u32,
    /// Time to connect, without TLS.
    pub connect: Duration,
    /// Time for one attempt.
    pub attempt: Duration,
    /// Time for one call with all its attempts, its document, and the wait for its turn.
    pub total: Duration,
    /// RSA keys made ahead of need.
    pub keys_ahead: usize,
}

impl Default for KmsLimits {
    fn default() -> Self {
        Self {
            concurrency: 16,
            attempts: 4,
            connect: Duration::from_secs(3),
            attempt: Duration::from_secs(6),
            total: Duration::from_secs(20),
            keys_ahead: 4,
        }
    }
}

/// A client could not be set up.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("TLS cannot be set up: {0}")]
pub struct KmsSetupError(#[from] rustls::Error);

/// A fresh data key: what to use now, and what to keep.
#[derive(Debug)]
pub struct DataKey {
    /// The key itself.
    pub plaintext: KeyMaterial,
    /// The key wrapped by KMS, for [`KmsClient::decrypt`] with the same context.
    pub ciphertext: Vec<u8>,
}

/// Calls KMS for one key, every call with a `Recipient`: a document made for it, over an RSA key that is used once.
/// Make one and keep it: it pools connections and holds credentials. Needs a Tokio runtime.
pub struct KmsClient {
    key: KeyArn,
    sdk: Client,
    credentials: HeldCredentials,
    documents: Arc<dyn DocumentSource>,
    keys: RecipientKeys,
    turns: Semaphore,
    total: Duration,
    metrics: Arc<Metrics>,
}

impl KmsClient {
    /// Connects nowhere yet; starts making RSA keys.
    ///
    /// # Errors
    /// [`KmsSetupError`] where TLS cannot be set up.
    pub fn new(config: KmsConfig) -> Result<Self, KmsSetupError> {
        let KmsConfig { key, roots, dialer, credentials, clock, documents, limits } = config;
        let time = EnclaveTime(clock.clone());
        let credentials = HeldCredentials::new(credentials, clock);
        let http = connector::http_client(dialer, roots, time.clone(), limits.connect, limits.concurrency)?;
        let sdk = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(key.region().to_owned()))
            .endpoint_url(format!("https://{}", key.endpoint_host()))
            .http_client(http)
            .time_source(time)
            .credentials_provider(credentials.clone())
            .identity_cache(IdentityCache::no_cache())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(limits.attempt).build())
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(limits.attempts.max(1))
                    .with_initial_backoff(Duration::from_millis(200))
                    .with_max_backoff(Duration::from_secs(3)),
            )
            .build();
        Ok(Self {
            key,
            sdk: Client::from_conf(sdk),
            credentials,
            documents,
            keys: RecipientKeys::start(limits.keys_ahead),
            turns: Semaphore::new(limits.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            total: limits.total,
            metrics: Arc::default(),
        })
    }

    /// The same client, counting with what else the enclave counts.
    #[must_use]
    pub fn counting(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Lifetime left of the credentials that are held; zero where none are, or where they are being fetched.
    pub fn credentials_remaining(&self) -> Duration {
        self.credentials.remaining()
    }

    /// The key that is used.
    pub const fn key(&self) -> &KeyArn {
        &self.key
    }

    /// Has KMS make a 256-bit key, bound to `context`.
    ///
    /// # Errors
    /// [`KmsError`]; nothing was released to anybody then.
    pub async fn generate_data_key(&self, context: &WrapContext) -> Result<DataKey, KmsError> {
        let call = Call::wrapping("GenerateDataKey", context);
        let (key, mut reply) = self
            .attested(&call, async |recipient| {
                let request = self.sdk.generate_data_key().key_id(self.key.as_str()).key_spec(DataKeySpec::Aes256);
                let request = request.set_encryption_context(Some(call.pairs.clone().into_iter().collect()));
                let reply = request.recipient(recipient).send().await;
                reply.map(Reply::from).map_err(|error| failure::cause_of(&error))
            })
            .await?;
        let ciphertext = reply.take_wrapped()?;
        Ok(DataKey { plaintext: open_key(key, &reply.sealed)?, ciphertext })
    }

    /// Has KMS unwrap a key that was wrapped under `context`.
    ///
    /// # Errors
    /// [`KmsError`]; [`KmsError::Length`] for a wrapped key that KMS would not have made, without asking it.
    pub async fn decrypt(&self, wrapped: &[u8], context: &WrapContext) -> Result<KeyMaterial, KmsError> {
        if !(1..=MAX_WRAPPED).contains(&wrapped.len()) {
            return Err(KmsError::Length { what: "a wrapped key" });
        }
        let call = Call::wrapping("Decrypt", context);
        let (key, reply) = self
            .attested(&call, async |recipient| {
                let request = self.sdk.decrypt().key_id(self.key.as_str()).ciphertext_blob(Blob::new(wrapped));
                let request = request.set_encryption_context(Some(call.pairs.clone().into_iter().collect()));
                let request = request.encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault);
                let reply = request.recipient(recipient).send().await;
                reply.map(Reply::from).map_err(|error| failure::cause_of(&error))
            })
            .await?;
        open_key(key, &reply.sealed)
    }

    /// Has KMS draw `count` random bytes, at most 1,024: to be mixed with the enclave's own, never to replace them.
    ///
    /// # Errors
    /// [`KmsError`]; [`KmsError::Length`] where `count` is zero or more than that, without asking.
    pub async fn generate_random(&self, count: u16) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        if !(1..=1024).contains(&count) {
            return Err(KmsError::Length { what: "a number of random bytes" });
        }
        let call = Call { operation: "GenerateRandom", log_id: None, pairs: BTreeMap::new() };
        let (key, reply) = self
            .attested(&call, async |recipient| {
                let request = self.sdk.generate_random().number_of_bytes(i32::from(count)).recipient(recipient);
                request.send().await.map(Reply::from).map_err(|error| failure::cause_of(&error))
            })
            .await?;
        let random = cms::open(key, &reply.sealed)?;
        if random.len() == usize::from(count) { Ok(random) } else { Err(EnvelopeError.into()) }
    }

    /// One call with all its attempts. Expired credentials are thrown away and the call made once more, with another key
    /// and another document.
    async fn attested<S, F>(&self, call: &Call, send: S) -> Result<(RecipientKey, CheckedReply), KmsError>
    where
        S: Fn(RecipientInfo) -> F,
        F: Future<Output = Result<Reply, KmsError>>,
    {
        let whole = async {
            let _turn = self.turns.acquire().await.map_err(|_| KmsError::TimedOut)?;
            let credentials = self.credentials.generation().await;
            match self.once(call, &send).await {
                Err(KmsError::CredentialsExpired) => {
                    self.credentials.discard(credentials).await;
                    self.once(call, &send).await
                }
                done => done,
            }
        };
        let begun = tokio::time::Instant::now();
        let under_way = self.metrics.hold(Metric::KmsWaiting, "");
        let done = tokio::time::timeout(self.total, whole).await.unwrap_or(Err(KmsError::TimedOut));
        drop(under_way);
        self.metrics.observe(Metric::KmsSeconds, &[call.operation], begun.elapsed());
        if done.is_ok() {
            self.metrics.count(Metric::KmsCalls, &[call.operation]);
        }
        if let Err(error) = &done {
            self.metrics.count(Metric::KmsFailures, &[error.cause()]);
            tracing::warn!(operation = call.operation, cause = error.cause(), %error, next = error.next_step(), "KMS call failed");
        }
        done
    }

    async fn once<S, F>(&self, call: &Call, send: &S) -> Result<(RecipientKey, CheckedReply), KmsError>
    where
        S: Fn(RecipientInfo) -> F,
        F: Future<Output = Result<Reply, KmsError>>,
    {
        let key = self.keys.take().await?;
        let request = request_hash(call.operation, &call.pairs);
        let user_data = UserData::Kms { log_id: call.log_id, request }.encode();
        let request = DocumentRequest { public_key: key.public_key(), user_data: &user_data, nonce: None };
        let document = self.documents.document(request).await?;
        let recipient = RecipientInfo::builder()
            .key_encryption_algorithm(KeyEncryptionMechanism::RsaesOaepSha256)
            .attestation_document(Blob::new(document.as_slice()))
            .build();
        match send(recipient).await {
            Ok(reply) => Ok((key, reply.check(&self.key)?)),
            Err(KmsError::ConditionNotMet { said, .. }) => {
                Err(KmsError::ConditionNotMet { said, presented: Presented::of(&document) })
            }
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for KmsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KmsClient({})", self.key)
    }
}

/// One request, as far as the document is bound to it.
struct Call {
    operation: &'static str,
    log_id: Option<LogId>,
    pairs: BTreeMap<String, String>,
}

impl Call {
    fn wrapping(operation: &'static str, context: &WrapContext) -> Self {
        Self { operation, log_id: Some(context.log_id()), pairs: context.pairs() }
    }
}

/// A sealed key must have 32 bytes; any other length is as bad as an envelope that does not open, and looks the same.
fn open_key(key: RecipientKey, sealed: &[u8]) -> Result<KeyMaterial, KmsError> {
    let opened = cms::open(key, sealed)?;
    let mut bytes = Zeroizing::new([0; 32]);
    if opened.len() != bytes.len() {
        return Err(EnvelopeError.into());
    }
    bytes.copy_from_slice(&opened);
    Ok(KeyMaterial::copied_from(&bytes))
}
