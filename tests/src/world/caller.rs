use std::sync::{Arc, Mutex};

use client::{Client, ClientError, ContentDone, DecryptRequest, EncryptRequest, MediaKey};
use transcode_confidential::{
    audit::Receipt,
    ids::{KeyId, Period},
    keys::KeyRotationPolicy,
    message::EncryptionContext,
    protocol::api::{CreateKey, KeyChanged, KeyInfo, LogMaintained},
};

/// What somebody holds who was told that something is on the record. Shared by all callers of a world.
#[derive(Clone, Default)]
pub struct Acknowledged(Arc<Mutex<Vec<Receipt>>>);

impl Acknowledged {
    /// Keeps a receipt.
    pub fn keep(&self, receipt: Receipt) {
        self.0.lock().expect("no test panics while it holds this").push(receipt);
    }

    /// Every receipt so far.
    pub fn receipts(&self) -> Vec<Receipt> {
        self.0.lock().expect("no test panics while it holds this").clone()
    }
}

/// A client with an identity; keeps every receipt that it is given.
#[derive(Clone)]
pub struct Caller {
    /// The client itself.
    pub client: Client,
    acknowledged: Acknowledged,
}

impl Caller {
    pub(super) const fn new(client: Client, acknowledged: Acknowledged) -> Self {
        Self { client, acknowledged }
    }

    /// Makes a key under the enclave's defaults.
    pub async fn generate(&self, id: &str) -> Result<KeyChanged, ClientError> {
        let (max_age_secs, max_uses, require_attestation) = (None, None, None);
        self.create(CreateKey { id: key_id(id), max_age_secs, max_uses, require_attestation }).await
    }

    /// Makes a key under this policy.
    pub async fn generate_under(&self, id: &str, policy: KeyRotationPolicy) -> Result<KeyChanged, ClientError> {
        self.create(CreateKey {
            id: key_id(id),
            max_age_secs: Some(policy.max_age_secs),
            max_uses: Some(policy.max_uses),
            require_attestation: Some(policy.require_attestation),
        })
        .await
    }

    async fn create(&self, request: CreateKey) -> Result<KeyChanged, ClientError> {
        self.kept(self.client.generate_key(&request).await)
    }

    /// Makes the next version of a key.
    pub async fn rotate(&self, id: &str) -> Result<KeyChanged, ClientError> {
        self.kept(self.client.rotate_key(&key_id(id), None).await)
    }

    /// Ends a key.
    pub async fn revoke(&self, id: &str) -> Result<KeyChanged, ClientError> {
        self.kept(self.client.revoke_key(&key_id(id)).await)
    }

    /// Keeps the receipt of what was done to the log.
    pub fn kept_done(&self, done: Result<LogMaintained, ClientError>) -> Result<LogMaintained, ClientError> {
        if let Ok(done) = &done {
            self.acknowledged.keep(done.receipt.0.clone());
        }
        done
    }

    /// Has the state of the log written down.
    pub async fn snapshot(&self) -> Result<LogMaintained, ClientError> {
        self.kept_done(self.client.snapshot_log().await)
    }

    /// Has the log pruned as far as it may be.
    pub async fn prune(&self) -> Result<LogMaintained, ClientError> {
        self.kept_done(self.client.prune_log(None).await)
    }

    /// Looks at a key.
    pub async fn key(&self, id: &str) -> Result<KeyInfo, ClientError> {
        self.client.key(&key_id(id)).await
    }

    /// Encrypts into one message.
    pub async fn encrypt(&self, id: &str, content: &[u8]) -> Result<Vec<u8>, ClientError> {
        self.encrypt_in(id, content, EncryptionContext::new()).await.map(|(message, _)| message)
    }

    /// Encrypts into one message with a context; tells what was done, too.
    pub async fn encrypt_in(
        &self,
        id: &str,
        content: &[u8],
        context: EncryptionContext,
    ) -> Result<(Vec<u8>, ContentDone), ClientError> {
        let request = EncryptRequest { key: key_id(id), context, content_id: None };
        let mut message = Vec::new();
        let done = self.client.encrypt(&request, std::io::Cursor::new(content.to_vec()), &mut message).await?;
        self.acknowledged.keep(done.receipt.clone());
        Ok((message, done))
    }

    /// Decrypts one message. What came out before a failure is not given.
    pub async fn decrypt(&self, message: &[u8]) -> Result<Vec<u8>, ClientError> {
        let mut content = Vec::new();
        let input = std::io::Cursor::new(message.to_vec());
        let done = self.client.decrypt(&DecryptRequest::default(), input, &mut content).await?;
        self.acknowledged.keep(done.receipt);
        Ok(content)
    }

    /// Keeps a receipt that came with an answer.
    pub fn keep(&self, receipt: Receipt) {
        self.acknowledged.keep(receipt);
    }

    /// The media key of a period of some content.
    pub async fn media_key(&self, id: &str, content: &str, period: u64) -> Result<MediaKey, ClientError> {
        let content = content.parse().expect("a name of content");
        let got = self.client.media_key(&key_id(id), &content, Period(period)).await?;
        self.acknowledged.keep(got.receipt.clone());
        Ok(got)
    }

    fn kept(&self, changed: Result<KeyChanged, ClientError>) -> Result<KeyChanged, ClientError> {
        if let Ok(changed) = &changed {
            self.acknowledged.keep(changed.receipt.0.clone());
        }
        changed
    }
}

/// A key id that is known to be one.
pub fn key_id(text: &str) -> KeyId {
    text.parse().expect("a key id")
}
