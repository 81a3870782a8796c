use std::path::PathBuf;

use super::ReceiptFile;
use clap::{Args, Subcommand, ValueEnum};
use transcode_confidential::{
    audit::{AuditEvent, AuditEventType, AuditSeverity},
    ids::{Epoch, Sequence},
    time::Timestamp,
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuditVerb {
    /// Verify all segments of a log, offline
    Verify(LogArgs),
    /// List events of a log that verifies, stored or at the server
    List(ListArgs),
    /// Show one event of a log that verifies, with all that is known of it
    #[command(allow_missing_positional = true)]
    Show {
        #[command(flatten)]
        query: QueryArgs,
        /// Its sequence: its position in the log, from 0
        #[arg(value_parser = parse_sequence)]
        event: Sequence,
    },
    /// Count the events of a log that verifies: by type, severity, key and principal
    Stats {
        #[command(flatten)]
        query: QueryArgs,
        #[command(flatten)]
        filter: Filter,
    },
    /// Show the last events of a log that verifies and, with -f, those that come
    Tail(TailArgs),
    /// Write the events of a log that verifies for other tools
    Export(ExportArgs),
    /// Write a proof, for anybody who has the log's verifier key, that an event is in the log
    Prove(ProveArgs),
    /// Prove that one checkpoint of a log continues another
    Consistency(ConsistencyArgs),
    /// Verify a log and write what was found, for a browser: one file, which loads nothing
    Report {
        #[command(flatten)]
        log: LogArgs,
        /// The file to write
        #[arg(short, long, value_name = "OUT")]
        output: PathBuf,
    },
    /// Snapshots, legal holds and pruning, by a running enclave
    #[command(subcommand)]
    Keep(LogVerb),
    /// Fetch the enclave's newest checkpoint, verified, to keep where the operator cannot change it
    Checkpoint {
        /// The file to write [default: standard output]
        #[arg(short, long, value_name = "OUT")]
        output: Option<PathBuf>,
    },
}

/// What is done to the log of a running enclave.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum LogVerb {
    /// Write the whole state down, so that a boot can begin there
    Snapshot {
        #[command(flatten)]
        receipt: ReceiptFile,
    },
    /// Give up events that a snapshot stands for and that the retention policy need not keep
    Prune {
        /// Give up none from this event on
        #[arg(long, value_name = "SEQUENCE", value_parser = parse_sequence)]
        up_to: Option<Sequence>,
        #[command(flatten)]
        receipt: ReceiptFile,
    },
    /// Place a legal hold: nothing is pruned before it is lifted
    Hold {
        /// Its name
        name: String,
        #[command(flatten)]
        receipt: ReceiptFile,
    },
    /// Lift a legal hold
    Lift {
        /// Its name
        name: String,
        #[command(flatten)]
        receipt: ReceiptFile,
    },
    /// List the legal holds in force
    Holds,
}

/// A stored log, and what it is held against.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct LogArgs {
    /// The directory with the segment files
    pub(in crate::cli) dir: PathBuf,
    /// Another directory with segments of the same log, such as the proxy's archive; repeatable
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) archive: Vec<PathBuf>,
    /// A checkpoint that was kept elsewhere; repeatable
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) checkpoint: Vec<PathBuf>,
    /// A receipt that was kept elsewhere, base64 or binary; repeatable
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) receipt: Vec<PathBuf>,
}

/// A stored log that is read once it has verified, or the log of the server.
#[derive(Debug, Args)]
pub(in crate::cli) struct QueryArgs {
    /// The directory with the segment files [default: the log of the --server]
    pub(in crate::cli) dir: Option<PathBuf>,
    /// Another directory with segments of the same log, such as the proxy's archive; repeatable
    #[arg(long, value_name = "DIR", requires = "dir")]
    pub(in crate::cli) archive: Vec<PathBuf>,
    /// A checkpoint that was kept elsewhere; repeatable
    #[arg(long, value_name = "FILE", requires = "dir")]
    pub(in crate::cli) checkpoint: Vec<PathBuf>,
    /// A receipt that was kept elsewhere, base64 or binary; repeatable
    #[arg(long, value_name = "FILE", requires = "dir")]
    pub(in crate::cli) receipt: Vec<PathBuf>,
    /// Verify nothing, and read whatever looks like an event: anybody may have written it
    #[arg(long, requires = "dir", conflicts_with_all = ["checkpoint", "receipt"])]
    pub(in crate::cli) danger_unverified: bool,
}

impl LogArgs {
    /// Where its segments lie.
    pub(in crate::cli) fn directories(&self) -> Vec<PathBuf> {
        [std::slice::from_ref(&self.dir), &self.archive].concat()
    }
}

impl QueryArgs {
    /// The stored log that is meant, if one is.
    pub(in crate::cli) fn stored(&self) -> Option<LogArgs> {
        let dir = self.dir.clone()?;
        let archive = self.archive.clone();
        Some(LogArgs { dir, archive, checkpoint: self.checkpoint.clone(), receipt: self.receipt.clone() })
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TailArgs {
    /// The directory with the segment files [default: the log of the --server]
    pub(in crate::cli) dir: Option<PathBuf>,
    /// Another directory with segments of the same log, such as the proxy's archive; repeatable
    #[arg(long, value_name = "DIR", requires = "dir")]
    pub(in crate::cli) archive: Vec<PathBuf>,
    /// Go on with the events that come, until interrupted
    #[arg(short, long)]
    pub(in crate::cli) follow: bool,
    /// Begin with the last N events, of which those that the filters accept are shown; --after begins elsewhere
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    pub(in crate::cli) lines: u64,
    #[command(flatten)]
    pub(in crate::cli) filter: Filter,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConsistencyArgs {
    /// The directory with the segment files [default: the log of the --server]
    pub(in crate::cli) dir: Option<PathBuf>,
    /// Another directory with segments of the same log, such as the proxy's archive; repeatable
    #[arg(long, value_name = "DIR", requires = "dir")]
    pub(in crate::cli) archive: Vec<PathBuf>,
    /// The earlier checkpoint
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) old: PathBuf,
    /// The later checkpoint [default: the server's newest]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) new: Option<PathBuf>,
    /// The file to write the proof to: {old, new, proof}
    #[arg(short, long, value_name = "OUT")]
    pub(in crate::cli) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    pub(in crate::cli) query: QueryArgs,
    #[command(flatten)]
    pub(in crate::cli) filter: Filter,
    /// Most events to list
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(in crate::cli) limit: usize,
    /// List the last of them rather than the first
    #[arg(long)]
    pub(in crate::cli) last: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ProveArgs {
    /// The directory with the segment files [default: the log of the --server]
    pub(in crate::cli) dir: Option<PathBuf>,
    /// Another directory with segments of the same log, such as the proxy's archive; repeatable
    #[arg(long, value_name = "DIR", requires = "dir")]
    pub(in crate::cli) archive: Vec<PathBuf>,
    /// A checkpoint to prove it to; repeatable [default: the server's newest]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) checkpoint: Vec<PathBuf>,
    /// A receipt that was kept elsewhere, base64 or binary; repeatable. At the server, that of the event stands for the grant
    /// to read it, and the proof is without the event's leaf
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) receipt: Vec<PathBuf>,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "tlog-proof")]
    pub(in crate::cli) format: ProofFormat,
    /// The event: its position in the log, from 0
    #[arg(long, value_name = "N", value_parser = parse_sequence)]
    pub(in crate::cli) event: Sequence,
    /// Prove it to the checkpoint of this size [default: the largest that is given]
    #[arg(long, value_name = "M")]
    pub(in crate::cli) size: Option<u64>,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "OUT")]
    pub(in crate::cli) output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ProofFormat {
    /// A C2SP tlog-proof file
    TlogProof,
    /// A COSE receipt (RFC 9942) to the server's newest tree
    Cose,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    #[command(flatten)]
    pub(in crate::cli) query: QueryArgs,
    /// How they are written
    #[arg(long, required_unless_present = "tiles")]
    pub(in crate::cli) format: Option<ExportFormat>,
    /// Write the log up to a --checkpoint as C2SP tlog-tiles into this new directory
    #[arg(long, value_name = "DIR", requires = "checkpoint")]
    #[arg(conflicts_with_all = ["format", "output", "danger_unverified"], conflicts_with = "Filter")]
    pub(in crate::cli) tiles: Option<PathBuf>,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "OUT")]
    pub(in crate::cli) output: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) filter: Filter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ExportFormat {
    /// One JSON object a line, with the leaf of each event
    Jsonl,
    /// A table for spreadsheets; no cell of it is a formula
    Csv,
    /// One OCSF event (API Activity) a line, with the leaf of each event
    Ocsf,
}

/// Which events are wanted: those that every given option accepts.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(in crate::cli) struct Filter {
    /// Of this type, as KeyUsed or key-used; repeatable
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    types: Vec<AuditEventType>,
    /// Of at least this severity: info, warning, critical
    #[arg(long, value_name = "SEVERITY", value_parser = parse_severity)]
    severity: Option<AuditSeverity>,
    /// About this key
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// Asked for by this principal
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// About this content
    #[arg(long, value_name = "ID")]
    content: Option<String>,
    /// Of this epoch
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
    /// Not before: RFC 3339, or seconds since the Unix epoch
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Before: RFC 3339, or seconds since the Unix epoch
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// Behind this one: to go on where a list was cut
    #[arg(long, value_name = "SEQUENCE", value_parser = parse_sequence)]
    after: Option<Sequence>,
    /// With this text in its details or names, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
}

impl Filter {
    /// The first event that can be accepted.
    pub(in crate::cli) fn first(&self) -> Sequence {
        self.after.map_or(Sequence(0), |after| Sequence(after.0.saturating_add(1)))
    }

    /// Whether it says where to begin.
    pub(in crate::cli) const fn begins(&self) -> bool {
        self.after.is_some()
    }

    pub(in crate::cli) fn accepts(&self, event: &AuditEvent) -> bool {
        let is = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        (self.types.is_empty() || self.types.contains(&event.event_type))
            && self.severity.is_none_or(|least| event.severity >= least)
            && is(&self.key, &event.key_id)
            && is(&self.principal, &event.principal)
            && is(&self.content, &event.content_id)
            && self.epoch.is_none_or(|epoch| event.epoch == Epoch(epoch))
            && self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time < until)
            && self.after.is_none_or(|after| event.sequence > after)
            && self.text.as_deref().is_none_or(|text| has_text(event, text))
    }
}

fn has_text(event: &AuditEvent, text: &str) -> bool {
    let text = text.to_lowercase();
    let names = [&event.enclave_id, &event.key_id, &event.principal, &event.content_id];
    let mut texts = names.into_iter().flatten().chain([&event.details]);
    texts.any(|found| found.to_lowercase().contains(&text))
}

fn parse_type(text: &str) -> Result<AuditEventType, String> {
    let plain = text.replace(['-', '_'], "");
    AuditEventType::ALL.into_iter().find(|known| known.to_string().eq_ignore_ascii_case(&plain)).ok_or_else(|| {
        let known: Vec<_> = AuditEventType::ALL.iter().map(ToString::to_string).collect();
        format!("write one of {}", known.join(", "))
    })
}

fn parse_severity(text: &str) -> Result<AuditSeverity, &'static str> {
    [AuditSeverity::Info, AuditSeverity::Warning, AuditSeverity::Critical]
        .into_iter()
        .find(|known| known.to_string().eq_ignore_ascii_case(text))
        .ok_or("write info, warning or critical")
}

fn parse_time(text: &str) -> Result<Timestamp, &'static str> {
    match text.parse::<u64>() {
        Ok(seconds) => Ok(Timestamp::from_secs(seconds)),
        Err(_) => text.parse().map_err(|_| "write a time as 2026-01-31T12:00:00Z, or seconds since the Unix epoch"),
    }
}

pub(super) fn parse_sequence(text: &str) -> Result<Sequence, &'static str> {
    text.parse().map(Sequence).map_err(|_| "write the position of an event in the log: 0, 1, ...")
}
