use std::{sync::Arc, time::Duration};

use enclave_app::{
    kms::{Dial, KeyArn, KmsClient, KmsConfig, KmsLimits, WrapContext},
    nsm::NsmHandle,
};
use serde_json::{Value, json};
use testkit::{
    clock::ManualClock,
    kms::{CountingDialer, MockCredentials, MockKms, MockKmsOptions},
    nsm::{MockHypervisor, MockImage, MockNsm, Mode},
};
use transcode_confidential::{
    ids::{KeyVersion, LogId},
    time::{Clock, Timestamp},
};

/// The year 2026, where the mock's certificates are valid.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_780_000_000);
pub(crate) const ROLE: &str = "enclave";
pub(crate) const LIFETIME: Duration = Duration::from_secs(6 * 3600);

/// An enclave of image `ours`, a KMS, a key that image may use, and everything between them.
pub(crate) struct Setting {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) hypervisor: MockHypervisor,
    pub(crate) nsm: Arc<MockNsm>,
    pub(crate) kms: MockKms,
    pub(crate) key: KeyArn,
    pub(crate) credentials: Arc<MockCredentials>,
    pub(crate) dialer: Arc<CountingDialer>,
}

impl Setting {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut MockKmsOptions)) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let hypervisor = MockHypervisor::new(clock.clone());
        let nsm = hypervisor.launch(&MockImage::named("ours"));
        let mut options = MockKmsOptions { clock: clock.clone(), ..MockKmsOptions::new(hypervisor.trust_root()) };
        change(&mut options);
        let kms = MockKms::start(options).await;
        let key = kms.create_key(key_policy(&kms, &MockImage::named("ours")));
        kms.put_role_policy(
            ROLE,
            json!({
                "Statement": { "Effect": "Allow", "Action": "kms:GenerateRandom", "Resource": "*" },
            }),
        );
        let credentials = Arc::new(MockCredentials::holding(kms.issue_credentials(ROLE, LIFETIME)));
        let dialer = kms.dialer();
        Self { clock, hypervisor, nsm, kms, key, credentials, dialer }
    }

    /// The configuration of an enclave that is set up right.
    pub(crate) fn config(&self) -> KmsConfig {
        KmsConfig {
            key: self.key.clone(),
            roots: self.kms.roots(),
            dialer: self.dialer.clone(),
            credentials: self.credentials.clone(),
            clock: self.clock.clone(),
            documents: Arc::new(NsmHandle::start(self.nsm.clone()).unwrap()),
            limits: KmsLimits { total: Duration::from_secs(60), keys_ahead: 1, ..KmsLimits::default() },
        }
    }

    pub(crate) fn client(&self) -> KmsClient {
        KmsClient::new(self.config()).unwrap()
    }

    /// A client whose configuration differs.
    pub(crate) fn client_with(&self, change: impl FnOnce(&mut KmsConfig)) -> KmsClient {
        let mut config = self.config();
        change(&mut config);
        KmsClient::new(config).unwrap()
    }

    /// A client in an enclave of another image, or in another mode.
    pub(crate) fn client_in(&self, mode: Mode, image: &str) -> KmsClient {
        let nsm = self.hypervisor.launch_in(mode, &MockImage::named(image));
        self.client_with(|config| config.documents = Arc::new(NsmHandle::start(nsm).unwrap()))
    }

    pub(crate) fn client_with_clock(&self, clock: Arc<dyn Clock>) -> KmsClient {
        self.client_with(|config| config.clock = clock)
    }

    pub(crate) fn client_with_dialer(&self, dialer: Arc<dyn Dial>) -> KmsClient {
        self.client_with(|config| config.dialer = dialer)
    }
}

/// One Allow with the image's PCRs, nothing else.
pub(crate) fn key_policy(kms: &MockKms, image: &MockImage) -> Value {
    let pcrs = image.pcrs();
    let conditions: serde_json::Map<String, Value> = pcrs
        .iter()
        .map(|(index, value)| (format!("kms:RecipientAttestation:{index}"), value.to_string().into()))
        .collect();
    json!({
        "Statement": [{
            "Effect": "Allow",
            "Principal": { "AWS": kms.role_arn(ROLE) },
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": "*",
            "Condition": { "StringEqualsIgnoreCase": conditions },
        }],
    })
}

pub(crate) fn content(key: &str, version: u32) -> WrapContext {
    WrapContext::content_key(LogId::new([7; 16]), key.parse().unwrap(), KeyVersion(version))
}
