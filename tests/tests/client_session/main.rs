//! The client against servers that are not what they say: nothing of the client is shown to them, and nothing of theirs is
//! believed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

mod channel;
mod content;
mod enclave;
mod log;
