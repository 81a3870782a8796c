use std::time::Duration;

use transcode_confidential::protocol::host::HostError;

/// How a scripted parent behaves from now on.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// What it does with sealed batches.
    pub appends: Appends,
    /// How long it thinks before it answers one.
    pub delay: Duration,
    /// Says to every enclave that another session is alive.
    pub fenced: bool,
    /// Takes no connections of the host protocol, and ends those there are.
    pub gone: bool,
    /// Lets the enclave out to KMS.
    pub egress: Egress,
    /// Ends one connection, once.
    pub cut: Option<Cut>,
}

/// What a scripted parent does with a sealed batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Appends {
    /// Keeps it and says so.
    #[default]
    Keep,
    /// Says that it keeps it, and does not.
    Forget,
    /// Says nothing until the script changes.
    Hold,
    /// Refuses it.
    Refuse(HostError),
}

/// Whether the enclave gets out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Egress {
    /// To KMS.
    #[default]
    Open,
    /// Nowhere.
    Closed,
}

/// When a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// At which request, counted over all connections from the start of the parent.
    pub request: u64,
    /// Whether the request is still carried out, so that only its answer is lost.
    pub when: CutWhen,
}

/// On which side of a request's effect a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutWhen {
    /// The request has no effect.
    Before,
    /// The request has its effect, and no answer.
    After,
}
