//! Where the events of a query come from: a directory, or the server.

use serde_json::{Map, Value, json};
use transcode_confidential::{
    audit::verify::{Report, SealedEvent},
    ids::Sequence,
};

use super::{live, stored};
use crate::{
    cli::{
        args::{Global, QueryArgs},
        environment::Environment,
        exit::Failure,
    },
    log_memory::VerifiedCheckpoint,
};

/// What vouches for the events.
enum Grounds {
    /// A stored log that verified as a whole.
    Stored(Box<Report>),
    /// The attested checkpoint of the server.
    Live(Box<VerifiedCheckpoint>),
    /// Nothing, as the caller wished.
    Nothing,
}

/// Where the events of a query came from.
pub(in crate::cli) struct Source {
    grounds: Grounds,
    notes: Vec<String>,
}

/// Which events of the log a query needs to see.
#[derive(Clone, Copy)]
pub(in crate::cli) struct Range {
    pub(super) from: Sequence,
    /// The last one; all, where there is none.
    pub(super) last: Option<Sequence>,
}

impl Range {
    pub(in crate::cli) const fn from(from: Sequence) -> Self {
        Self { from, last: None }
    }
}

impl Source {
    pub(super) fn stored(report: Report, note: Option<String>) -> Self {
        Self { grounds: Grounds::Stored(Box::new(report)), notes: note.into_iter().collect() }
    }

    pub(super) fn unverified(note: Option<String>) -> Self {
        Self { grounds: Grounds::Nothing, notes: note.into_iter().collect() }
    }

    pub(super) fn live(checkpoint: VerifiedCheckpoint, notes: Vec<String>) -> Self {
        Self { grounds: Grounds::Live(Box::new(checkpoint)), notes }
    }

    /// The report on a stored log.
    pub(super) fn report(&self) -> Option<&Report> {
        match &self.grounds {
            Grounds::Stored(report) => Some(report),
            _ => None,
        }
    }

    /// An object with these members and those of every object that shows events.
    pub(in crate::cli) fn object(&self, members: Value) -> Value {
        let report = self.report();
        let mut object = match members {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        let live = match &self.grounds {
            Grounds::Live(checkpoint) => Some(checkpoint),
            _ => None,
        };
        let verified = report.is_some() || live.is_some();
        let log_id = report.and_then(|report| report.log_id).or(live.map(|checkpoint| checkpoint.log_id()));
        let head = report.and_then(|report| report.head).or(live.map(|checkpoint| *checkpoint.state()));
        object.insert("verified".into(), verified.into());
        object.insert("verdict".into(), json!(report.map(|report| report.verdict)));
        object.insert("log_id".into(), json!(log_id));
        object.insert("head".into(), json!(head));
        object.insert("notes".into(), json!(report.map(|report| &report.notes)));
        object.insert("source".into(), if live.is_some() { "server" } else { "directory" }.into());
        Value::Object(object)
    }

    /// What a person should know about the events.
    pub(in crate::cli) fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        match &self.grounds {
            Grounds::Nothing => {
                notes.push("UNVERIFIED (--danger-unverified): anybody may have written these events".into());
            }
            Grounds::Stored(report) => {
                notes.extend(report.notes.iter().map(|note| format!("{note}: {}", super::explain(*note))));
            }
            Grounds::Live(_) => {}
        }
        notes
    }
}

/// Reads the events of a log for showing them: of a stored one that is intact, or of anything where the caller said so; or of
/// the server's, each proven to be on it. A stored log is read as a whole, whatever the range.
///
/// # Errors
/// Where that cannot be said of them. So what `sink` gets must not be shown before this has returned.
pub(in crate::cli) fn events(
    query: &QueryArgs,
    range: Range,
    global: &Global,
    environment: &Environment,
    sink: &mut dyn FnMut(SealedEvent),
) -> Result<Source, Failure> {
    match query.stored() {
        Some(log) if query.danger_unverified => stored::unverified(&log.directories(), sink),
        Some(log) => stored::intact(&log, global, environment, sink),
        None => live::events(range, global, environment, sink),
    }
}
