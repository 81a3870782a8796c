//! What a running system shows of itself: figures that are true, read by others' rules, and say nothing that is secret.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

mod exposition;
mod figures;
mod files;
mod top;
