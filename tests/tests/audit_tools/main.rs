//! What `confidential audit` makes of a stored log, beyond the verdict.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

mod browser;
mod desk;
mod export;
mod query;
mod report;
