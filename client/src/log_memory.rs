//! What a client remembers of an enclave's log, so that no log can be exchanged, forked or rewound behind its back.
//!
//! [`VerifiedCheckpoint`] is what an attested enclave says of its log, with both signatures verified. [`Remembered`] is the
//! newest of them, and decides whether the next one continues it. [`LogMemory`] keeps one per log in a directory.

mod checkpoint;
mod error;
mod remembered;
mod store;

pub use {
    checkpoint::VerifiedCheckpoint,
    error::LogError,
    remembered::{ConsistencyNeed, Remembered},
    store::LogMemory,
};
