//! The enclave's side of the host protocol.
//!
//! A [`HostLink`] is one connection to the parent with requests under way on it. It never reconnects by itself: whoever owns
//! the log's head does, because a new connection begins with finding out what the parent still has.

mod link;
mod sources;

pub use link::{HostFailure, HostLink};
pub use sources::{CurrentLink, HostCredentials};
