//! The parent, in memory: one that keeps what it is given, on better and worse days.

mod link;
mod parent;
#[path = "../../../enclave-app/src/host/sources.rs"]
#[allow(missing_docs, unreachable_pub, reason = "it is looked at where it lives")]
mod sources;

pub use enclave_app::host::HostFailure;
pub use link::HostLink;
pub use parent::{Parent, Weather};
pub use sources::{CurrentLink, HostCredentials};
