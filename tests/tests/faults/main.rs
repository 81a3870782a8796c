//! The system under fire: streams cut, delayed and garbled at every byte, crowds of slow strangers, input without end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that fails should fail loudly, one that counts should say the count, and may be told how often"
)]

mod credentials;
mod crowd;
mod disks;
mod input;
mod streams;
