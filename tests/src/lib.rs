//! What tests and the demo put in the place of AWS and of time: mocks that run outside the enclave and never ship.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a mock that cannot go on should fail the test loudly"
)]

pub mod clock;
pub mod demo;
pub mod kms;
pub mod log_maker;
pub mod nsm;
