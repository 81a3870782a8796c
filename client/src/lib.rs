//! The client: attested sessions with an enclave, keys and content through them, and the command line `confidential`.
//!
//! | module | what it is |
//! |---|---|
//! | [`Client`] | keys, content, status, policy: what an enclave can be asked |
//! | [`cli`] | the command line |
//! | [`gateway`] | plain HTTP for tools on the same machine that cannot attest |
//! | [`kms_policy`] | the KMS key policy as code: generated and linted |
//! | [`local`] | content on this machine's own cores |
//! | [`log_memory`] | what is remembered of a log, so that it cannot be exchanged, forked or rewound |
//! | [`reconcile`] | whether some content is complete |
//! | [`session`] | TLS 1.3 connections whose peer attested itself first |
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

mod calls;
pub mod cli;
mod error;
pub mod gateway;
pub mod kms_policy;
pub mod local;
pub mod log_memory;
pub mod reconcile;
pub mod session;

pub use {
    calls::{
        AnswerBody, Client, ContentDone, DecryptRequest, EncryptRequest, Inclusion, LogPage, LogReader, LogView,
        MediaKey, NotForwarded, PolicyAdopted, Released,
    },
    error::{ClientError, ContentError, ErrorKind},
};
