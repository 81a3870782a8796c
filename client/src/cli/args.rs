mod audit;
mod authority;
mod content;
mod gateway;
mod keys;
mod reports;
mod top;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use transcode_confidential::ids::{KeyVersion, LogId};

pub(super) use audit::{
    AuditVerb, ConsistencyArgs, ExportArgs, ExportFormat, Filter, ListArgs, LogArgs, LogVerb, ProofFormat, ProveArgs,
    QueryArgs, TailArgs,
};
pub(super) use authority::{KmsFormat, KmsVerb, PkiVerb, PolicyVerb, RestoreArgs};
pub(super) use content::{Content, Decrypt, Encrypt, Rewrap};
pub(super) use gateway::{GatewayArgs, WatchArgs};
pub(super) use keys::{Expected, KeysVerb, Once, ReceiptFile};
pub(super) use reports::{Reconcile, Report};
pub(super) use top::TopArgs;

use super::attestation::VerifyAt;

/// Content keys in an attested enclave, and the proof of every use of them.
#[derive(Debug, Parser)]
#[command(name = "confidential", version, propagate_version = true, max_term_width = 110)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct Global {
    /// The enclave's address: tcp:HOST:PORT (or HOST:PORT), unix:PATH, vsock:CID:PORT [env: CONFIDENTIAL_SERVER]
    #[arg(long, global = true, value_name = "ADDR")]
    pub(super) server: Option<String>,
    /// Client certificate and its private key, PEM, in one file [env: CONFIDENTIAL_IDENTITY]
    #[arg(long, global = true, value_name = "CERT_AND_KEY")]
    pub(super) identity: Option<PathBuf>,
    /// What an image may measure; repeatable [env: CONFIDENTIAL_MEASUREMENTS, several separated by ':']
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) measurements: Vec<PathBuf>,
    /// Accept any image: whoever rents an enclave can then pose as yours
    #[arg(long, global = true, conflicts_with = "measurements")]
    pub(super) any_image: bool,
    /// Root certificate that attestation documents must lead to [default: AWS's, built in]
    #[arg(long, global = true, value_name = "PEM")]
    pub(super) root: Option<PathBuf>,
    /// Print one JSON object on standard output, also on failure
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Where the newest checkpoint of each log is remembered [default: $XDG_STATE_HOME/transcode-confidential]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// Accept this log on a server that had another one so far
    #[arg(long, global = true, value_name = "ID")]
    pub(super) accept_log: Option<LogId>,
    /// Accept a log that lost events, where the policy authority had it restored from an older copy
    #[arg(long, global = true)]
    pub(super) accept_restored: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Verify or show an attestation document
    #[command(subcommand)]
    Attestation(AttestationVerb),
    /// Verify and query a stored audit log, or fetch a checkpoint to keep
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Make, list, rotate, suspend, revoke and destroy content keys
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Encrypt a file or a stream
    Encrypt(Encrypt),
    /// Decrypt a file or a stream
    Decrypt(Decrypt),
    /// Encrypt a message anew under the active version of its key, inside the enclave
    Rewrap(Rewrap),
    /// Serve tools on this machine that cannot attest, such as ffmpeg and curl: plain HTTP in, the attested channel out
    Gateway(GatewayArgs),
    /// Encrypt the files of a directory as a packager finishes them
    Watch(WatchArgs),
    /// Put on the record what was done with a piece of content
    Report(Box<Report>),
    /// Find what of some content is missing: issued keys, reported pieces and a playlist, held against each other
    Reconcile(Reconcile),
    /// Show the state of the enclave and of its log
    Status,
    /// Watch a deployment: figures from the proxy, and what the enclave itself says
    Top(TopArgs),
    /// Make a client CA and client identities
    #[command(subcommand)]
    Pki(PkiVerb),
    /// Make, sign, show and hand over policy: who may do what
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// Run the benches: the program `confidential-bench`, beside this one or on the path
    #[command(disable_help_flag = true)]
    Bench {
        /// What it is to do
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AttestationVerb {
    /// Verify a document: root, certificates, signature, no debug mode, image, age
    Verify {
        /// The document as the enclave gave it
        file: PathBuf,
        /// The time to verify at: now, document (its own signed time), RFC 3339, or seconds since the Unix epoch
        #[arg(long, value_name = "TIME", default_value = "now")]
        at: VerifyAt,
        /// Greatest accepted age, in seconds, unless verified at the document's own time
        #[arg(long, value_name = "SECONDS", default_value_t = 3 * 3600)]
        max_age: u64,
        /// The 32 bytes in hexadecimal that the document must answer
        #[arg(long, value_name = "HEX", value_parser = super::attestation::parse_nonce)]
        nonce: Option<[u8; 32]>,
    },
    /// Show what a document says, without verifying any of it
    Show {
        /// The document as the enclave gave it
        file: PathBuf,
    },
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".into()),
    }
}

fn parse_version(text: &str) -> Result<KeyVersion, String> {
    text.parse().map(KeyVersion).map_err(|_| "write a number".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
