//! What tests and the demo put in the place of AWS and of time, and the systems that they build from it. Mocks run outside
//! the enclave and never ship.
//!
//! | module | what it is |
//! |---|---|
//! | [`nsm`] | a hypervisor that launches enclaves under a root of its own |
//! | [`kms`] | a KMS that verifies documents and evaluates policies as AWS does |
//! | [`parent`] | a parent that does as it is told, also what no honest one does |
//! | [`world`] | the whole system in one process |
//! | [`demo`] | the whole system in processes of their own, with explanations |
//! | [`boot_test`] | real images in an emulated machine |
//! | [`log_maker`] | logs made without running an enclave |
//! | [`segments`] | segment files as a vandal sees them |
//! | [`disk`] | a disk that a test makes fail |
//! | [`interposer`] | a stream that a test cuts, delays or garbles at any byte |
//! | [`clock`] | clocks that a test moves |
//! | [`capture`] | what is logged, and the memory of processes, to be searched |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a mock that cannot go on should fail the test loudly"
)]

pub mod boot_test;
pub mod capture;
pub mod clock;
pub mod demo;
pub mod disk;
pub mod fuzzing;
pub mod interposer;
pub mod kms;
pub mod log_maker;
pub mod nsm;
pub mod parent;
pub mod segments;
pub mod world;

/// In every binary that contains mocks, so that a test can show that production binaries do not.
pub const MARKER: &str = "transcode-confidential: this program contains mocks of NSM and KMS and must not be deployed";
