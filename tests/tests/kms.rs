//! The enclave's KMS client against the mock: real TLS, the real wire protocol, documents of a mock NSM.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

#[path = "kms/clocks.rs"]
mod clocks;
#[path = "kms/connections.rs"]
mod connections;
#[path = "kms/credentials.rs"]
mod credentials;
#[path = "kms/faults.rs"]
mod faults;
#[path = "kms/keys.rs"]
mod keys;
#[path = "kms/policy.rs"]
mod policy;
#[path = "kms/setting.rs"]
mod setting;
