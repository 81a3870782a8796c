//! Content keys: when they rotate, what state they are in, and how that state follows from the audit log.
//!
//! [`KeyTable`] is the state: a fold over audit events ([`KeyTable::apply`]), with one pure decision function
//! ([`KeyTable::decide`]) that turns a request into the event that grants it, or into a refusal. The enclave runs it on its
//! persisted log; [`KeyRotationManager`] runs it on an in-memory [`crate::audit::AuditLog`], for embedding.

mod answered;
mod attestor;
mod error;
mod manager;
mod media_key;
mod periods;
mod policy;
mod request;
mod rows;
mod state;

pub use answered::{ANSWERED_AGE, ANSWERED_LIMIT, Answered, AnsweredRequests};
pub use attestor::{Attested, Attestor, AttestorError};
pub use error::{FoldError, KeyError};
pub use manager::{KeyRotationManager, ManagedKey};
pub use media_key::MediaKey;
pub use periods::{MediaPeriods, PeriodRun};
pub use policy::{KeyRotationPolicy, RotationNeed, USES_CAP};
pub use request::KeyRequest;
pub use state::{KeyRecord, KeyState, KeyTable, VersionRecord, VersionState};
