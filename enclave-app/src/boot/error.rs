use thiserror::Error;
use transcode_confidential::{
    attestation::Refusal, audit::verify::Report, entropy::EntropyError, keys::FoldError, signature::SignatureError,
};

use crate::{
    attestor::AttestFailure,
    config::ConfigError,
    host::HostFailure,
    kms::{KmsError, KmsSetupError},
    ledger::{LedgerError, LedgerFatal},
    nsm::NsmError,
};

/// Why no epoch was opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BootError {
    /// PCR0, 1 or 2 is zero: a debug enclave, whose memory the host can read.
    #[error("this is a debug enclave: PCR0 to PCR2 are zero")]
    DebugMode,
    /// The NSM failed.
    #[error(transparent)]
    Nsm(#[from] NsmError),
    /// A thread could not be started.
    #[error("the NSM's thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The configuration is not accepted.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The parent failed.
    #[error(transparent)]
    Host(#[from] HostFailure),
    /// The parent says it has another state than its segments show.
    #[error("the parent's store disagrees with its own segments")]
    StoreDisagrees,
    /// The log that the parent holds is not intact.
    #[error("the log is {}: {}", .0.verdict, .0.first_bad.as_ref().map(ToString::to_string).unwrap_or_default())]
    Log(Box<Report>),
    /// The log contradicts itself.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// Our own document was refused.
    #[error(transparent)]
    Attestation(#[from] AttestFailure),
    /// KMS cannot be used.
    #[error(transparent)]
    KmsSetup(#[from] KmsSetupError),
    /// KMS did not give the log key.
    #[error("the log key cannot be had from KMS: {0}")]
    Kms(#[from] KmsError),
    /// The unwrapped log key is not the log's.
    #[error("the log key that KMS unwrapped is not that of the log")]
    WrongLogKey,
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] SignatureError),
    /// The epoch's first event is not durable.
    #[error("the epoch's first event could not be recorded: {0}")]
    Ledger(#[from] LedgerError),
    /// The parent's store is not ours any more.
    #[error(transparent)]
    Fatal(#[from] LedgerFatal),
}

impl From<Refusal> for BootError {
    fn from(refusal: Refusal) -> Self {
        Self::Attestation(refusal.into())
    }
}
