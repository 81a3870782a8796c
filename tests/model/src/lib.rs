//! The sources of the enclave, compiled a second time against a scheduler that chooses every turn.
//!
//! [`sources`] are the very files of `enclave-app`: no copy, no feature, nothing in the enclave that knows of this. Their
//! locks (`crate::lock`) are shuttle's here, and the crate `tokio` that they name is this one: its tasks are shuttle's, its
//! time stands still until somebody lets it pass, and its channels are tokio's own, which need no runtime. So one thread
//! plays every interleaving, and a seed plays it again.
//!
//! | module | what it is |
//! |---|---|
//! | [`sources`] | boot, ledger, custody, grants, callers, archive: as they ship |
//! | [`runtime`] | the `tokio` that they get: tasks in islands that can be killed, channels, a clock |
//! | [`host`] | the parent, in memory: it cuts connections, refuses, dawdles, is gone |
//! | [`kms`] | KMS, in memory |
//! | [`nsm`] | the NSM: a mock hypervisor, without a thread |
//! | [`stage`] | a ledger or a whole enclave, set up to be played with |
//! | [`explorer`] | walks through every state of a small machine |
// Not as a test of its own: the unit tests in the sources of the enclave run where they live.
#![cfg(not(test))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

#[doc(hidden)]
pub extern crate real_tokio;
extern crate self as tokio;

pub mod explorer;
pub mod host;
pub mod kms;
pub mod lock;
pub mod nsm;
pub mod runtime;
pub mod stage;

/// The enclave's own files. What is here shows in no other way than there.
#[path = "../../../enclave-app/src"]
#[allow(missing_docs, dead_code, unreachable_pub, reason = "they are looked at where they live")]
pub mod sources {
    pub mod archive;
    pub mod attestor;
    pub mod boot;
    pub mod callers;
    pub mod custody;
    pub mod grants;
    pub mod keyring;
    pub mod ledger;
}

pub use enclave_app::{clock, config, entropy, metrics};
pub use runtime::{spawn, sync, task, time};
pub use sources::{archive, attestor, boot, callers, custody, grants, keyring, ledger};

use std::sync::Arc;

use transcode_confidential::attestation::TrustRoot;

/// As [`enclave_app::Parts`], with this KMS.
pub struct Parts {
    /// The measured configuration.
    pub config: config::Config,
    /// The Nitro Secure Module.
    pub nsm: Arc<dyn nsm::Nsm>,
    /// The root that documents of that NSM chain to.
    pub attestation_root: TrustRoot,
    /// The way to KMS: here it is KMS itself.
    pub kms_roots: kms::Service,
    /// Time since boot.
    pub boottime: Arc<dyn clock::Boottime>,
}

/// As tokio's, but always in the order in which the branches stand: no other chance than the scheduler's.
#[macro_export]
macro_rules! select {
    (biased; $($branches:tt)*) => { $crate::real_tokio::select! { biased; $($branches)* } };
    ($($branches:tt)*) => { $crate::real_tokio::select! { biased; $($branches)* } };
}
