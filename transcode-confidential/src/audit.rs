//! The audit log: tamper-evident, provable, and small enough to hold in the head.
//!
//! [`AuditLog`] is the log in memory, for embedding and for tests. The enclave runs the same [`Chain`] without keeping the
//! events; the parent keeps them as [`segment`]s; anybody verifies those with [`verify`].
//!
//! ```
//! use transcode_confidential::audit::{AuditEventType, AuditLog, AuditSeverity};
//!
//! let mut log = AuditLog::new();
//! log.log(
//!     AuditEventType::KeyGenerated,
//!     Some("enclave-7".to_string()),
//!     Some("trailer-key".to_string()),
//!     "made for the trailer".to_string(),
//!     AuditSeverity::Info,
//! );
//! assert!(log.verify_integrity());
//! assert_eq!(log.events_by_type(&AuditEventType::KeyGenerated).len(), 1);
//! assert!(log.critical_events().is_empty());
//! ```

mod body;
mod chain;
pub mod checkpoint;
pub mod cose_receipt;
mod epoch;
mod event;
mod leaf;
mod log;
mod receipt;
mod reported;
mod request_tag;
mod seal;
pub mod segment;
mod tagged;
pub mod tiles;
pub mod tlog_proof;
pub mod tree;
pub mod verify;

pub(crate) use body::PARTS_LIMIT;
pub use body::{
    CreationReason, EpochOpened, EventBody, HOLD_NAME_LIMIT, HoldChange, KeyChange, KeyOperation, Maintenance, Outcome,
};
pub use chain::{Batch, Chain, ChainError};
pub use epoch::EpochStatement;
pub use event::{AuditEvent, AuditEventType, AuditSeverity, EventDraft};
pub use leaf::{DETAILS_LIMIT, LEAF_LIMIT, LeafError, NAME_LIMIT, decode as decode_leaf, leaf_hash};
pub use log::AuditLog;
pub use receipt::{Receipt, ReceiptError};
pub use reported::{JOB_LIMIT, ReportOf, Reported};
pub use request_tag::RequestTag;
pub use seal::{LogState, Seal};

// Rotation writes its history into an audit log, and the two are documented and imported together.
pub use crate::keys::{KeyError, KeyRotationManager, KeyRotationPolicy, ManagedKey};
