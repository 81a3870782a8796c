use std::path::PathBuf;

use clap::Args;
use transcode_confidential::ids::{Digest, KeyId, KeyVersion, Sequence};

use super::{ReceiptFile, audit::parse_sequence, parse_version};

/// What was done with a piece of content.
#[derive(Debug, Args)]
pub(in crate::cli) struct Report {
    /// The content
    #[arg(value_name = "CONTENT")]
    pub(in crate::cli) content_id: String,
    /// The key that it is under
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) key: KeyId,
    /// The version of that key
    #[arg(long, value_name = "N", value_parser = parse_version)]
    pub(in crate::cli) key_version: Option<KeyVersion>,
    /// Names the job
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) job: String,
    /// The piece's number within the job; for segments, the media sequence number
    #[arg(long, value_name = "N")]
    pub(in crate::cli) sequence: u64,
    /// The piece was given up
    #[arg(long)]
    pub(in crate::cli) aborted: bool,
    /// Frames in it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(in crate::cli) frames: u64,
    /// The file that was read: its length and SHA-256 are reported
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bytes_in", "input_digest"])]
    pub(in crate::cli) input: Option<PathBuf>,
    /// The file that was written: its length and SHA-256 are reported
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bytes_out", "output_digest"])]
    pub(in crate::cli) output: Option<PathBuf>,
    /// Bytes that were read
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(in crate::cli) bytes_in: u64,
    /// Bytes that were written
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(in crate::cli) bytes_out: u64,
    /// SHA-256 of what was read
    #[arg(long, value_name = "HEX")]
    pub(in crate::cli) input_digest: Option<Digest>,
    /// SHA-256 of what was written
    #[arg(long, value_name = "HEX")]
    pub(in crate::cli) output_digest: Option<Digest>,
    #[command(flatten)]
    pub(in crate::cli) receipt: ReceiptFile,
}

/// What is held against each other.
#[derive(Debug, Args)]
pub(in crate::cli) struct Reconcile {
    /// The content
    #[arg(value_name = "CONTENT")]
    pub(in crate::cli) content_id: String,
    /// The media playlist (HLS) that should be complete
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) playlist: PathBuf,
    /// Where the segments lie [default: the playlist's directory]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) dir: Option<PathBuf>,
    /// The directory with the log's segment files [default: the log of the --server]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) log: Option<PathBuf>,
    /// Another directory with segments of the same log, such as the proxy's archive; repeatable
    #[arg(long, value_name = "DIR", requires = "log")]
    pub(in crate::cli) archive: Vec<PathBuf>,
    /// A checkpoint that was kept elsewhere; repeatable
    #[arg(long, value_name = "FILE", requires = "log")]
    pub(in crate::cli) checkpoint: Vec<PathBuf>,
    /// A receipt that was kept elsewhere; repeatable
    #[arg(long = "receipt", value_name = "FILE", requires = "log")]
    pub(in crate::cli) receipts: Vec<PathBuf>,
    /// Only events behind this one: what came before the content is neither read nor counted
    #[arg(long, value_name = "SEQUENCE", value_parser = parse_sequence)]
    pub(in crate::cli) after: Option<Sequence>,
    /// Only what this job reported
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) job: Option<String>,
    /// How many segments there should be
    #[arg(long, value_name = "N")]
    pub(in crate::cli) expect_segments: Option<u64>,
    /// How long the playlist should be, give or take one segment
    #[arg(long, value_name = "SECONDS")]
    pub(in crate::cli) expect_duration: Option<f64>,
}
