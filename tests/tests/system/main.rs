//! The whole system: enclave, parent, KMS and clients together, on good days and bad ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that fails should fail loudly"
)]

mod allowances;
mod answers;
mod attested_callers;
mod chaos;
mod data_keys;
mod desk;
mod images;
mod interruptions;
mod kms;
mod lies;
mod life;
mod local;
mod lost;
mod media_keys;
mod once;
mod outages;
mod policies;
mod pruning;
mod reading;
mod reports;
mod requests;
mod restarts;
mod restores;
mod resumption;
mod sealed;
mod snapshots;
mod streams;
mod tampering;
