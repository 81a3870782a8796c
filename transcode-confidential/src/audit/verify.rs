//! Verification of a stored log, by the enclave at boot and by any auditor.
//!
//! [`LogVerifier`] takes the segments of a log in the order of their names and checks everything that the log claims: records,
//! leaves, chain, tree, seals, each epoch's attestation document and log key statement, footers. It holds one batch at a
//! time. What it hands to its sink was sealed; what it says in the end is a [`Report`].
//!
//! Where there are several cores, [`Prepared`] records take most of the work elsewhere.
//!
//! What a log cannot show by itself is that its end was cut off between two seals. Checkpoints and receipts that somebody
//! kept elsewhere show that: give them to [`LogVerifier::expect`].

mod epoch;
mod evidence;
mod follow;
mod prepare;
mod report;
mod run;
mod tail;
mod walk;

pub use evidence::{Evidence, EvidenceError};
pub use follow::{FollowError, LogFollower, Page};
pub use prepare::Prepared;
pub use report::{EpochSummary, Finding, Note, Report, Tail, Verdict};
pub use walk::{LogVerifier, SealedEvent};
