//! The enclave: boot, the ledger, custody of keys, and the service, with every part of the world handed in.
//!
//! | module | what it is |
//! |---|---|
//! | [`boot`] | from nothing but the image to an open epoch |
//! | [`ledger`] | the one place that appends to the audit log |
//! | [`archive`] | what is done to the log itself: snapshots, legal holds, pruning |
//! | [`custody`] | making, using and ending keys, each only on the record |
//! | [`service`] | the HTTP API inside attested TLS |
//! | [`upkeep`] | rotations that are due, re-attestation, newer policies |
//! | [`host`] | the enclave's side of the host protocol |
//! | [`kms`] | AWS KMS, by attestation |
//! | [`metrics`] | what is counted, and told to the parent |
//! | [`console`] | what is printed |
//! | [`nsm`], [`attestor`], [`clock`], [`entropy`] | the NSM, our own documents, time, randomness |
//! | [`callers`] | callers that are enclaves themselves |
//! | [`program`], [`pid1`] | the program around it: an ordinary process, or the first one of an image |
//! | [`grants`], [`keyring`], [`config`] | the policy in force, key material, the measured configuration |
//! | [`lock`] | the locks around whatever is decided upon |
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test that fails should fail loudly"
    )
)]

pub mod archive;
pub mod attestor;
pub mod boot;
pub mod callers;
pub mod clock;
pub mod config;
pub mod console;
pub mod custody;
pub mod entropy;
pub mod grants;
pub mod host;
pub mod keyring;
pub mod kms;
pub mod ledger;
pub mod lock;
pub mod metrics;
pub mod nsm;
pub mod pid1;
pub mod program;
pub mod service;
pub mod upkeep;

use std::sync::Arc;

use rustls::RootCertStore;
use thiserror::Error;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use transcode_confidential::{attestation::TrustRoot, time::Clock};
use transport::{BindError, Endpoint};

use crate::{
    archive::Archive,
    boot::{BootError, Booted},
    clock::Boottime,
    config::Config,
    grants::Grants,
    ledger::{LedgerFatal, RefusalMeter},
    metrics::Reporter,
    nsm::Nsm,
    service::{
        RequestMemory, RequestRate, Service, SharedDocuments, Turns,
        tls::{Channel, ChannelError},
    },
    upkeep::Upkeep,
};

/// Documents of callers that are verified a second, over all connections.
const CALLERS_PER_SECOND: u32 = 20;
/// How long a shutdown waits for the last events.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(10);

/// The world, as the enclave gets it. The production binary names the real one; tests hand in another; nothing below can
/// tell.
pub struct Parts {
    /// The measured configuration.
    pub config: Config,
    /// The Nitro Secure Module.
    pub nsm: Arc<dyn Nsm>,
    /// The root that documents of that NSM chain to.
    pub attestation_root: TrustRoot,
    /// The certificate authorities that KMS may use.
    pub kms_roots: RootCertStore,
    /// Time since boot.
    pub boottime: Arc<dyn Boottime>,
}

/// What the enclave is once it serves.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The log.
    pub log_id: transcode_confidential::ids::LogId,
    /// The epoch of this boot.
    pub epoch: transcode_confidential::ids::Epoch,
}

/// Why the enclave stopped. Only a new boot can help.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Fatal {
    /// No epoch was opened.
    #[error("boot failed: {0}")]
    Boot(#[from] BootError),
    /// The channel cannot be set up.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Nobody could connect.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The log cannot be continued.
    #[error("the log cannot be continued: {0}")]
    Ledger(#[from] LedgerFatal),
    /// A task of ours ended by itself.
    #[error("a task ended unexpectedly")]
    Task,
}

/// Boots, serves until `shutdown` or until the parent asks for an end, drains, and sees the last event to disk.
///
/// # Errors
/// [`Fatal`].
pub async fn run(parts: Parts, serving: impl FnOnce(Serving) + Send, shutdown: CancellationToken) -> Result<(), Fatal> {
    let abandon = CancellationToken::new();
    let _abandon = abandon.clone().drop_guard();
    let booted = tokio::select! {
        booted = boot::boot(&parts, &shutdown, &abandon) => booted?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let Booted { custody, link, writer, log_key, epoch_key, policy, enclave_id, booted_at, entropy, metrics } = booted;
    let config = parts.config;
    let mut writer = writer;
    let clock = Arc::clone(&custody.clock) as Arc<dyn Clock>;
    let grants = Arc::new(Grants::new(config.deployment, config.policy_authority, policy.as_deref()));
    let refusals = Arc::new(RefusalMeter::counting(Arc::clone(&metrics)));
    let archive = Arc::new(Archive::new(Arc::clone(&custody), link.clone(), config.log));
    let upkeep = Upkeep {
        custody: Arc::clone(&custody),
        grants: Arc::clone(&grants),
        refusals: Arc::clone(&refusals),
        archive: Arc::clone(&archive),
        link: link.clone(),
        limits: config.limits,
        metrics: Arc::clone(&metrics),
    };
    upkeep.look_for_policy().await;
    let reporter = Reporter {
        metrics: Arc::clone(&metrics),
        custody: Arc::clone(&custody),
        grants: Arc::clone(&grants),
        refusals: Arc::clone(&refusals),
        link: link.clone(),
    };
    let listener = config.parent.listen.bind().await?;
    let endpoint = listener.endpoint().clone();
    let channel = Channel::new(&config.client_ca, clock)?;
    let shared_documents = SharedDocuments::new(custody.attestor.clone(), Arc::clone(&channel.spki));
    let service = Arc::new(Service {
        custody: Arc::clone(&custody),
        grants,
        refusals: Arc::clone(&refusals),
        archive: Arc::clone(&archive),
        link,
        log_key,
        epoch_key,
        entropy,
        channel,
        shared_documents,
        enclave_id,
        booted_at,
        attestation_rate: RequestRate::per_second(config.limits.attestations_per_second),
        known_attestation_rate: RequestRate::per_second(config.limits.attestations_per_second),
        attestation_root: parts.attestation_root,
        caller_rate: RequestRate::per_second(CALLERS_PER_SECOND),
        turns: Turns::default(),
        audit_wait: std::time::Duration::from_millis(config.limits.audit_wait_ms),
        log_reads: tokio::sync::Semaphore::new(service::LOG_READS),
        connections: config.limits.connections,
        memory: RequestMemory::default(),
        metrics,
    });
    serving(Serving { endpoint, log_id: custody.log_id(), epoch: custody.epoch });

    let stop = shutdown.child_token();
    let upkeep = tokio::spawn(upkeep.run(stop.clone()));
    let _reporting = AbortOnDropHandle::new(tokio::spawn(reporter.run(stop.clone())));
    let served = service::serve(service, listener, stop.clone());
    tokio::pin!(served);
    let fatal = tokio::select! {
        _ = &mut served => None,
        ended = &mut writer => Some(ended),
    };
    stop.cancel();
    if let Some(ended) = fatal {
        // What is not durable now never will be by us.
        return Err(ended.map_or(Fatal::Task, |result| result.map_or_else(Fatal::Ledger, |()| Fatal::Task)));
    }
    let _ = upkeep.await;
    refusals.flush_all(&custody.ledger);
    archive.at_end();
    custody.ledger.close();
    match tokio::time::timeout(SETTLE, writer).await {
        Ok(Ok(result)) => result.map_err(Fatal::Ledger),
        _ => Err(Fatal::Task),
    }
}
