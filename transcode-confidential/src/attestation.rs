//! Strict verification of Nitro attestation documents.
//!
//! One verifier serves genuine and mock documents; only the [`TrustRoot`] that it is handed differs. It takes received
//! bytes through three types, each of which can only come from the one before:
//!
//! 1. [`UnverifiedDocument::parse`]: shape and fields, checked strictly over the bytes as they were received;
//! 2. [`UnverifiedDocument::verify_live`] or [`UnverifiedDocument::verify_archived`]: certificates, signatures, debug
//!    mode, image, and for a live one its freshness;
//! 3. [`VerifiedDocument::require_purpose`]: what it was made for, which each consumer states.
//!
//! ```
//! use transcode_confidential::{
//!     attestation::{Freshness, ImagePolicy, Measurements, Nonce, Purpose, Refusal, TrustRoot, UnverifiedDocument},
//!     time::{Clock, SystemClock},
//! };
//!
//! /// The key of an enclave of ours, as it answered just now.
//! fn channel_key(received: &[u8], sent: Nonce, measurements: Measurements) -> Result<Vec<u8>, Refusal> {
//!     let document = UnverifiedDocument::parse(received)?.verify_live(
//!         &TrustRoot::aws(),
//!         SystemClock.now(),
//!         Freshness::with_nonce(sent),
//!         &ImagePolicy::Expect(measurements),
//!     )?;
//!     document.require_purpose(Purpose::Channel)?;
//!     Ok(document.public_key().unwrap_or_default().to_vec())
//! }
//! ```
//!
//! A refusal is a [`Refusal`]: exact, with data, and with a stable [`Refusal::reason`].

mod caller;
mod certificate;
mod chain;
mod claims;
mod document;
mod es384;
mod freshness;
mod measurements;
mod pcr;
mod purpose;
mod refusal;
mod root;
mod scan;
mod shared;

pub use caller::{CALLER_EXPORTER, caller_nonce};
pub use claims::Claims;
pub use document::{Archived, Live, MAX_SIZE, UnverifiedDocument, Verification, VerifiedDocument};
pub use freshness::{ExpectedNonce, Freshness, Nonce};
pub use measurements::{
    ExpectedImage, Finding, ImagePolicy, ImageVerdict, Measurements, MeasurementsError, NoImages, Problem,
};
pub use pcr::{PcrIndex, PcrValue, PcrValueError, Pcrs};
pub use purpose::{Purpose, UserData};
pub use refusal::{CertificateFault, Level, Position, Refusal, StructureFault, UnexpectedImage};
pub use root::{TrustRoot, TrustRootError};
pub use shared::{NoncePath, NoncePathError, SharedNonce};
