//! Every turn: the enclave's own sources under a scheduler that chooses who goes on, whole lives of an enclave at random, and
//! every state of a small machine of boots, resumptions and a parent that lies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that fails should fail loudly"
)]

mod commits;
mod lives;
mod nonces;
mod permits;
mod states;
mod uses;
