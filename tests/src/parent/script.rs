use std::time::Duration;

use transcode_confidential::{
    audit::segment::SegmentName,
    ids::{LeafHash, LogId},
    protocol::host::{Durable, HostError, Reply, Welcome},
};

/// How a scripted parent behaves from now on.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// What it does with sealed batches.
    pub appends: Appends,
    /// How long it thinks before it answers one, unless the script changes meanwhile.
    pub delay: Duration,
    /// Says to every enclave that another session is alive.
    pub fenced: bool,
    /// Takes no connections of the host protocol, and ends those there are.
    pub gone: bool,
    /// Lets the enclave out to KMS.
    pub egress: Egress,
    /// Ends one connection, once.
    pub cut: Option<Cut>,
    /// Which segment begins with the newest snapshot, where it says something else than what it has.
    pub snapshot: Option<Option<SegmentName>>,
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

/// A way to answer wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Bytes that are no message.
    Garbage,
    /// The beginning of the right answer.
    Half,
    /// The right answer to a request that was never made.
    OtherId,
    /// An answer of another kind.
    OtherKind,
    /// That the log is somewhere else.
    OtherState,
    /// The right answer, twice.
    Twice,
    /// That it cannot be done.
    Failure,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Garbage, Self::Half, Self::OtherId, Self::OtherKind, Self::OtherState, Self::Twice, Self::Failure];

    /// The frames that go out instead of the one with this reply.
    pub(super) fn frames(self, id: u64, reply: Reply) -> Vec<Vec<u8>> {
        let honest = reply.encode(id);
        let elsewhere = Durable { size: 7, last: LeafHash::new([7; 32]) };
        match self {
            Self::Garbage => vec![b"no message".to_vec()],
            Self::Half => vec![honest[..honest.len() / 2].to_vec()],
            Self::OtherId => vec![reply.encode(id + 1_000_000)],
            Self::OtherKind if reply == Reply::Done => vec![Reply::Policy(None).encode(id)],
            Self::OtherKind => vec![Reply::Done.encode(id)],
            Self::OtherState => vec![match reply {
                Reply::Welcome(welcome) => {
                    let log_id = welcome.durable.map_or(LogId::new([7; 16]), |(log_id, _)| log_id);
                    Reply::Welcome(Welcome { durable: Some((log_id, elsewhere)), ..welcome }).encode(id)
                }
                Reply::Appended(_) => Reply::Appended(elsewhere).encode(id),
                _ => honest,
            }],
            Self::Twice => vec![honest.clone(), honest],
            Self::Failure => vec![Reply::Failed(HostError::Refused).encode(id)],
        }
    }
}

/// When a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// At a request of which kind, as [`super::ScriptedParent::requests`] names it.
    pub kind: &'static str,
    /// At which of them, counted from 1 over all connections from the start of the parent.
    pub number: usize,
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
