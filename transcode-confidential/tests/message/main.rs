//! Messages as their readers and writers see them, and everything that a reader must refuse.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails should fail loudly"
)]

mod anew;
mod arbitrary;
mod content;
mod contexts;
mod data_keys;
mod headers;
mod sample;
