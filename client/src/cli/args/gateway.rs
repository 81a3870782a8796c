use std::{num::NonZeroU64, path::PathBuf};

use clap::Args;
use transcode_confidential::ids::KeyId;
use transport::Endpoint;

use super::parse_pair;
use crate::gateway::KeyUri;

#[derive(Debug, Args)]
pub(in crate::cli) struct GatewayArgs {
    /// Where to listen: unix:PATH (0600), or tcp: with a loopback address; repeatable
    #[arg(long, value_name = "ADDR", default_value = "tcp:127.0.0.1:0")]
    pub(in crate::cli) listen: Vec<Endpoint>,
    /// Keeps the secret part of the URL, so that a restart does not change it; made where it is missing
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) token_file: Option<PathBuf>,
    /// Where players find media keys, with {key}, {content} and {period} [default: this gateway]
    #[arg(long, value_name = "URI")]
    pub(in crate::cli) key_uri: Option<KeyUri>,
    /// A new media key this often, where the packager asks for key info anew and names no period
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    pub(in crate::cli) period: NonZeroU64,
    /// How long a request waits for an enclave that is being restarted: a segment's length, say
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub(in crate::cli) patience: u64,
    /// Connections at the same time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub(in crate::cli) max_connections: u16,
    /// Write the base URLs here, one a line (0600), when it serves
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) ready_file: Option<PathBuf>,
    /// How much to log, on standard error: error, warn, info, debug
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub(in crate::cli) log: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WatchArgs {
    /// Where a packager leaves its segments
    #[arg(value_name = "DIR")]
    pub(in crate::cli) dir: PathBuf,
    /// The key
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) key: KeyId,
    /// Where messages go, as NAME.tce [default: DIR]
    #[arg(short, long, value_name = "DIR")]
    pub(in crate::cli) output: Option<PathBuf>,
    /// A pair of the encryption context: authenticated, not secret
    #[arg(long, value_name = "K=V", value_parser = parse_pair)]
    pub(in crate::cli) context: Vec<(String, String)>,
    /// Names the content on the record: NAME/FILE [default: FILE]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) content_id: Option<String>,
    /// The packager is done: encrypt what is there, and end
    #[arg(long)]
    pub(in crate::cli) once: bool,
    /// End when every playlist says that it is complete and every file is encrypted
    #[arg(long)]
    pub(in crate::cli) until_end: bool,
    /// Remove each file once its message is in place
    #[arg(long)]
    pub(in crate::cli) delete: bool,
    /// A file that no playlist names is complete when it has not changed for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub(in crate::cli) settle: u64,
    /// Files at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(in crate::cli) jobs: u8,
}
