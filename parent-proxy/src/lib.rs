//! The enclave's parent: it carries bytes, keeps the log on disk, and is trusted for availability only.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | one TOML file |
//! | [`relay`] | clients to enclave, byte for byte |
//! | [`egress`] | enclave to allowed names, byte for byte |
//! | `host` | the host protocol: one live session, strict order |
//! | [`store`] | segments on disk: what was acknowledged is there after a crash |
//! | `credentials`, `policy` | what the enclave cannot get by itself, verified or tried there |
//! | `admin`, [`metrics`], `figures` | health and numbers for the operator, the enclave's among them |
//! | [`start`], [`Proxy`] | all of it, in this process: the binary and the tests use the same function |
//!
//! A proxy that lies can stall the enclave, or drop a tail of the log of which nobody holds a receipt. Everything else that
//! it hands to the enclave is verified or refused there.
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

mod admin;
pub mod cli;
pub mod config;
mod credentials;
pub mod egress;
mod enclave;
mod figures;
mod host;
pub mod metrics;
mod policy;
mod proxy;
pub mod relay;
mod reloadable;
mod sometimes;
pub mod store;

pub use credentials::Variables;
pub use proxy::{Addresses, Dependencies, Proxy, StartError, start};
