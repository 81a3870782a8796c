//! The enclave's parent: it carries bytes, keeps the log on disk, and is trusted for availability only.
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

pub mod config;
pub mod egress;
mod enclave;
pub mod metrics;
pub mod relay;
mod reloadable;
mod sometimes;
