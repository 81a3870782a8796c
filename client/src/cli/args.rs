mod audit;
mod gateway;
mod top;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use transcode_confidential::{
    ids::{Digest, Epoch, KeyId, KeyVersion, LogId, Principal, RootHash, Sequence},
    message::FrameLength,
    protocol::api::IDEMPOTENCY_KEY_LIMIT,
};

pub(super) use audit::{
    AuditVerb, ConsistencyArgs, ExportArgs, ExportFormat, Filter, ListArgs, LogArgs, LogVerb, ProofFormat, ProveArgs,
    QueryArgs, TailArgs,
};
pub(super) use gateway::{GatewayArgs, WatchArgs};

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

#[derive(Debug, Subcommand)]
pub(super) enum KeysVerb {
    /// Make a key
    Generate {
        /// Its name, never used before
        id: KeyId,
        /// Rotate a version at this age
        #[arg(long, value_name = "SECONDS")]
        max_age_secs: Option<u64>,
        /// Rotate a version after this many uses
        #[arg(long, value_name = "N")]
        max_uses: Option<u64>,
        /// Re-attest the enclave before a rotation takes effect
        #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        require_attestation: Option<bool>,
        #[command(flatten)]
        once: Once,
    },
    /// List the keys that this identity has some grant for
    List,
    /// Show one key
    Show {
        /// Its name
        id: KeyId,
    },
    /// Make the next version of a key
    Rotate {
        /// Its name
        id: KeyId,
        #[command(flatten)]
        expected: Expected,
        #[command(flatten)]
        once: Once,
    },
    /// End a key: nothing is encrypted or decrypted under it any more
    Revoke {
        /// Its name
        id: KeyId,
        #[command(flatten)]
        once: Once,
    },
    /// Suspend a key: nothing is encrypted or decrypted under it until it is resumed
    Suspend {
        /// Its name
        id: KeyId,
        #[command(flatten)]
        expected: Expected,
        #[command(flatten)]
        once: Once,
    },
    /// Take a suspension back
    Resume {
        /// Its name
        id: KeyId,
        #[command(flatten)]
        expected: Expected,
        #[command(flatten)]
        once: Once,
    },
    /// End a key, also a revoked one, and have the enclave forget its wrapped records; only deleting the KMS key is final
    #[command(disable_version_flag = true)]
    Destroy {
        /// Its name
        id: KeyId,
        /// This version alone, which must not be the active one
        #[arg(long, value_name = "N", value_parser = parse_version, conflicts_with = "expected_version")]
        version: Option<KeyVersion>,
        #[command(flatten)]
        expected: Expected,
        #[command(flatten)]
        once: Once,
    },
    /// Refuse to decrypt under versions before this one; may be lowered again
    #[command(disable_version_flag = true)]
    DecryptFrom {
        /// Its name
        id: KeyId,
        /// The oldest version that decrypts
        #[arg(value_parser = parse_version)]
        version: KeyVersion,
        #[command(flatten)]
        expected: Expected,
        #[command(flatten)]
        once: Once,
    },
    /// Do several things, each to another key, each with a result of its own
    Batch {
        /// JSON: [{"op": "generate", "id": "film-1"}, {"op": "suspend", "id": "film-2"}, ...]; - for standard input
        file: PathBuf,
        /// Sent again under the same one, within a day, nothing is done twice [default: a fresh one]
        #[arg(long, value_name = "KEY", value_parser = parse_idempotency_key)]
        idempotency_key: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Expected {
    /// Only where this version is active
    #[arg(long, value_name = "N", value_parser = parse_version)]
    pub(super) expected_version: Option<KeyVersion>,
}

/// What every command has that changes something.
#[derive(Debug, Args)]
pub(super) struct Once {
    /// Sent again under the same one, within a day, the answer is repeated and nothing is done twice [default: a fresh one]
    #[arg(long, value_name = "KEY", value_parser = parse_idempotency_key)]
    pub(super) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(super) receipt: ReceiptFile,
}

#[derive(Debug, Args)]
pub(super) struct ReceiptFile {
    /// Keep the receipt here: it proves the event against whoever holds the log
    #[arg(long = "receipt", value_name = "FILE")]
    pub(super) path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Encrypt {
    /// The key
    #[arg(long, value_name = "ID")]
    pub(super) key: KeyId,
    /// Frame length of the messages that --local writes, in bytes
    #[arg(long, value_name = "BYTES", requires = "local", value_parser = parse_frame_length)]
    pub(super) frame_length: Option<FrameLength>,
    #[command(flatten)]
    pub(super) content: Content,
}

#[derive(Debug, Args)]
pub(super) struct Decrypt {
    /// Refuse a message under any other key
    #[arg(long, value_name = "ID")]
    pub(super) key: Option<KeyId>,
    #[command(flatten)]
    pub(super) content: Content,
}

#[derive(Debug, Args)]
pub(super) struct Rewrap {
    /// Refuse a message under any other key
    #[arg(long, value_name = "ID")]
    pub(super) key: Option<KeyId>,
    #[command(flatten)]
    pub(super) content: Content,
}

#[derive(Debug, Args)]
pub(super) struct Content {
    /// A pair of the encryption context: authenticated, not secret; when decrypting, required of the message
    #[arg(long, value_name = "K=V", value_parser = parse_pair)]
    pub(super) context: Vec<(String, String)>,
    /// Names the content on the record
    #[arg(long, value_name = "NAME")]
    pub(super) content_id: Option<String>,
    #[command(flatten)]
    pub(super) receipt: ReceiptFile,
    #[command(flatten)]
    pub(super) local: Local,
    /// The file to read [default: standard input, also written -]; several with --out-dir
    #[arg(value_name = "IN")]
    pub(super) input: Vec<PathBuf>,
    /// The file to write, put in place only when all of it is verified [default: standard output, also written -]
    #[arg(short, long, value_name = "OUT")]
    pub(super) output: Option<PathBuf>,
}

/// What was done with a piece of content.
#[derive(Debug, Args)]
pub(super) struct Report {
    /// The content
    #[arg(value_name = "CONTENT")]
    pub(super) content_id: String,
    /// The key that it is under
    #[arg(long, value_name = "ID")]
    pub(super) key: KeyId,
    /// The version of that key
    #[arg(long, value_name = "N", value_parser = parse_version)]
    pub(super) key_version: Option<KeyVersion>,
    /// Names the job
    #[arg(long, value_name = "NAME")]
    pub(super) job: String,
    /// The piece's number within the job; for segments, the media sequence number
    #[arg(long, value_name = "N")]
    pub(super) sequence: u64,
    /// The piece was given up
    #[arg(long)]
    pub(super) aborted: bool,
    /// Frames in it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) frames: u64,
    /// The file that was read: its length and SHA-256 are reported
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bytes_in", "input_digest"])]
    pub(super) input: Option<PathBuf>,
    /// The file that was written: its length and SHA-256 are reported
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bytes_out", "output_digest"])]
    pub(super) output: Option<PathBuf>,
    /// Bytes that were read
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) bytes_in: u64,
    /// Bytes that were written
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) bytes_out: u64,
    /// SHA-256 of what was read
    #[arg(long, value_name = "HEX")]
    pub(super) input_digest: Option<Digest>,
    /// SHA-256 of what was written
    #[arg(long, value_name = "HEX")]
    pub(super) output_digest: Option<Digest>,
    #[command(flatten)]
    pub(super) receipt: ReceiptFile,
}

/// What is held against each other.
#[derive(Debug, Args)]
pub(super) struct Reconcile {
    /// The content
    #[arg(value_name = "CONTENT")]
    pub(super) content_id: String,
    /// The media playlist (HLS) that should be complete
    #[arg(long, value_name = "FILE")]
    pub(super) playlist: PathBuf,
    /// Where the segments lie [default: the playlist's directory]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// The directory with the log's segment files [default: the log of the --server]
    #[arg(long, value_name = "DIR")]
    pub(super) log: Option<PathBuf>,
    /// Another directory with segments of the same log, such as the proxy's archive; repeatable
    #[arg(long, value_name = "DIR", requires = "log")]
    pub(super) archive: Vec<PathBuf>,
    /// A checkpoint that was kept elsewhere; repeatable
    #[arg(long, value_name = "FILE", requires = "log")]
    pub(super) checkpoint: Vec<PathBuf>,
    /// A receipt that was kept elsewhere; repeatable
    #[arg(long = "receipt", value_name = "FILE", requires = "log")]
    pub(super) receipts: Vec<PathBuf>,
    /// Only events behind this one: what came before the content is neither read nor counted
    #[arg(long, value_name = "SEQUENCE", value_parser = audit::parse_sequence)]
    pub(super) after: Option<Sequence>,
    /// Only what this job reported
    #[arg(long, value_name = "NAME")]
    pub(super) job: Option<String>,
    /// How many segments there should be
    #[arg(long, value_name = "N")]
    pub(super) expect_segments: Option<u64>,
    /// How long the playlist should be, give or take one segment
    #[arg(long, value_name = "SECONDS")]
    pub(super) expect_duration: Option<f64>,
}

/// Work on this machine's own cores.
#[derive(Debug, Args)]
pub(super) struct Local {
    /// Work on this machine's own cores: the enclave issues or unwraps the data key of the message, content stays here
    #[arg(long)]
    pub(super) local: bool,
    /// Write one file for each IN into this directory: NAME.tce for NAME, and NAME for NAME.tce
    #[arg(long, value_name = "DIR", requires = "local", conflicts_with_all = ["output", "path"])]
    pub(super) out_dir: Option<PathBuf>,
    /// How many cores [default: all]
    #[arg(long, value_name = "N", requires = "local")]
    pub(super) threads: Option<std::num::NonZeroUsize>,
}

#[derive(Debug, Subcommand)]
pub(super) enum PkiVerb {
    /// Make a client CA: ca.pem for the enclave's configuration, ca.key to sign identities with
    Init {
        /// Where to
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
        /// Name of the CA
        #[arg(long, value_name = "NAME", default_value = "transcode-confidential client CA")]
        name: String,
        /// How long it is valid
        #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
    },
    /// Make an identity: certificate and private key in one file
    Client {
        /// The principal, as policy names it
        name: Principal,
        /// Where the CA is
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
        /// How long it is valid, never longer than the CA
        #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: u32,
        /// The file to write [default: NAME.pem beside the CA]
        #[arg(short, long, value_name = "OUT")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Make a policy authority's key and a policy to start from
    Init {
        /// Where to
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
        /// The deployment that the policy is for, as in the enclave's configuration
        #[arg(long, value_name = "NAME", default_value = "my-deployment")]
        deployment: String,
    },
    /// Sign a policy
    Sign {
        /// The policy, TOML
        file: PathBuf,
        /// The authority's private key
        #[arg(long, value_name = "FILE", default_value = "authority.key")]
        key: PathBuf,
        /// The document to write [default: FILE with the ending .cose]
        #[arg(short, long, value_name = "OUT")]
        output: Option<PathBuf>,
    },
    /// Show a signed policy
    Show {
        /// The document
        file: PathBuf,
        /// The authority's public key, in hexadecimal or as a file; without it, the signature is not checked
        #[arg(long, value_name = "HEX|FILE")]
        authority: Option<String>,
    },
    /// Hand a signed policy to the enclave
    Put {
        /// The document
        file: PathBuf,
        #[command(flatten)]
        once: Once,
    },
    /// Sign that a log is taken up again from an older copy: what came after the copy is lost
    Restore(RestoreArgs),
    /// The key policy of the KMS key, as code
    #[command(subcommand)]
    Kms(KmsVerb),
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The log
    pub(super) log_id: LogId,
    /// Number of events of the copy, as audit verify shows its head
    #[arg(long, value_name = "N")]
    pub(super) size: u64,
    /// Root of the copy, as audit verify shows its head
    #[arg(long, value_name = "HEX")]
    pub(super) root: RootHash,
    /// The deployment, as in the enclave's configuration
    #[arg(long, value_name = "NAME")]
    pub(super) deployment: String,
    /// Greatest epoch that anybody knows of and the copy does not have; 0 where there is none
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_epoch)]
    pub(super) lost_epoch: Epoch,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
    /// The authority's private key
    #[arg(long, value_name = "FILE", default_value = "authority.key")]
    pub(super) key: PathBuf,
    /// The document to write [default: restore.cose]
    #[arg(short, long, value_name = "OUT")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum KmsVerb {
    /// Write the key policy and the role's policy that let only the measured images get keys
    Generate {
        /// The KMS key
        #[arg(long, value_name = "ARN")]
        key_arn: String,
        /// The role of the instances that host the enclave
        #[arg(long, value_name = "ARN")]
        role: String,
        /// Who administers the key; repeatable
        #[arg(long, value_name = "ARN", required = true)]
        admin: Vec<String>,
        /// What to write
        #[arg(long, value_enum, default_value_t = KmsFormat::Json)]
        format: KmsFormat,
        /// The file to write [default: standard output]
        #[arg(short, long, value_name = "OUT")]
        output: Option<PathBuf>,
    },
    /// Find what in a key policy lets somebody else than the measured images get keys
    Lint {
        /// The key policy, JSON
        file: PathBuf,
    },
}

/// A form of the KMS policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KmsFormat {
    /// Both policies in one object
    Json,
    /// The key policy alone, for aws kms put-key-policy
    KeyPolicy,
    /// The role's policy alone, for aws iam put-role-policy
    RolePolicy,
    /// Both, as Terraform
    Terraform,
    /// Both, as a CloudFormation template
    Cloudformation,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".into()),
    }
}

fn parse_idempotency_key(text: &str) -> Result<String, String> {
    let suits = (1..=IDEMPOTENCY_KEY_LIMIT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    suits.then(|| text.to_owned()).ok_or_else(|| format!("1 to {IDEMPOTENCY_KEY_LIMIT} visible ASCII characters"))
}

fn parse_frame_length(text: &str) -> Result<FrameLength, String> {
    let bytes = text.parse().map_err(|_| "write a number".to_owned())?;
    match FrameLength::new(bytes) {
        Ok(length) if bytes >= 4096 => Ok(length),
        _ => Err("4096 to 16777216 bytes".into()),
    }
}

fn parse_epoch(text: &str) -> Result<Epoch, String> {
    text.parse().map(Epoch).map_err(|_| "write a number".into())
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
