//! The KMS key policy as code: generated from measurements, and checked for what would reopen the key.
//!
//! The key policy is the one place outside the enclave that decides which image gets keys. [`PolicyRequest`] writes it so that
//! only the measured images do, by one Allow an image and a Deny for everything else; [`lint`] finds in any key policy
//! what lets somebody else in, and says why and how to mend it. Both are pure functions.
//!
//! ```
//! use client::kms_policy::{PolicyRequest, lint};
//! use transcode_confidential::attestation::Measurements;
//!
//! # let digest = |digit: &str| digit.repeat(96);
//! # let file = format!(
//! #     r#"{{"format": "transcode-confidential/measurements/v1",
//! #         "images": [{{"label": "1.0", "pcrs": {{"0": "{}", "1": "{}", "2": "{}"}}}}]}}"#,
//! #     digest("a"), digest("b"), digest("c"),
//! # );
//! let request = PolicyRequest::new(
//!     &Measurements::from_json(file)?,
//!     "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
//!     "arn:aws:iam::111122223333:role/transcode-enclave",
//!     &["arn:aws:iam::111122223333:role/kms-admin"],
//! )?;
//! let findings = lint(&request.key_policy()?)?;
//! assert!(findings.iter().all(|finding| !finding.is_refused()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod actions;
mod arn;
mod generate;
mod lint;

pub use arn::{Arn, ArnError};
pub use generate::{GenerateError, PolicyRequest};
pub use lint::{Finding, NotAPolicy, Severity, lint};
