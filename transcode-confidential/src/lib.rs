//! Tamper-evident audit logging, key rotation and attestation policy for media transcoding in AWS Nitro Enclaves.
//!
//! The library is pure: it opens no socket, no file, and reads no clock that it was not handed. The enclave, the parent
//! proxy, the client and the offline auditor all run this same code.
//!
//! | module | what it is |
//! |---|---|
//! | [`audit`] | events, their leaf encoding, the hash chain and RFC 6962 tree over them, seals, receipts, checkpoints, segments, verification |
//! | [`fold`] | everything that the events of a log come to, and snapshots of it |
//! | [`keys`] | rotation policy, key state as a fold over events, the rotation state machine |
//! | [`attestation`] | strict verification of Nitro attestation documents, measurements, trust roots |
//! | [`message`] | content encryption in the AWS Encryption SDK message format 2.0, streaming |
//! | [`protocol`] | frames and messages between enclave and parent, API types, signed policy |
//! | [`ids`], [`time`], [`entropy`], [`secret`], [`signature`], [`cbor`] | the small vocabulary that those are written in |
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

pub mod attestation;
pub mod audit;
pub mod cbor;
pub mod entropy;
pub mod fold;
pub mod ids;
pub mod keys;
pub mod message;
pub mod protocol;
pub mod secret;
pub mod signature;
pub mod time;
