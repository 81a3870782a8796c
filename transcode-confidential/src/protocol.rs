//! What the parts of the system say to each other.
//!
//! | module | between |
//! |---|---|
//! | [`frame`] | anybody: how one message ends and the next begins |
//! | [`host`] | enclave and parent: log records out and in, credentials, policy |
//! | [`api`] | client and enclave, inside attested TLS |
//! | [`metrics`] | enclave and whoever watches it: the figures that are public, and nothing else |
//! | [`policy`] | policy authority and enclave: signed grants |
//! | [`restore`] | policy authority and enclave: which copy of a log is taken up again |

pub mod api;
pub mod frame;
pub mod host;
pub mod metrics;
pub mod policy;
pub mod restore;
