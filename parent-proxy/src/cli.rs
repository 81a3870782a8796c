//! The command line of the binary.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{StartError, config::ConfigError};

/// Relay, egress, log store and credentials for a transcode-confidential enclave, on its EC2 parent.
///
/// The proxy is trusted for availability only: TLS to clients and to KMS ends in the enclave, and the log that it keeps is
/// sealed by the enclave. Run it as a user of its own, with a log directory that nobody else can write.
///
/// Signals: SIGHUP reads the configuration again and takes over limits, time-outs, egress targets and the policy path.
/// SIGUSR1 asks the enclave to seal its log and end; `/readyz` says when no enclave has a session any more.
/// SIGTERM and SIGINT stop taking clients, let those that are there finish within `drain`, and exit with 0.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLE)]
pub struct Arguments {
    /// The configuration, a TOML file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Read the configuration, say whether it is valid, and exit.
    #[arg(long)]
    pub check: bool,
    /// How much to log: error, warn, info, debug, or a filter such as `parent_proxy::store=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "PARENT_PROXY_LOG", value_parser = filter)]
    pub log: String,
    /// How to log, on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

const EXAMPLE: &str = r#"A configuration that says everything that has no default:

    enclave = "vsock:16:5000"

    [relay]
    listen = ["tcp:0.0.0.0:8443"]

    [egress]
    listen = "vsock:any:9002"
    allow = ["kms.eu-central-1.amazonaws.com:443"]

    [host]
    listen = "vsock:any:9001"

    [store]
    directory = "/var/lib/transcode-confidential/log"

    [credentials]
    source = "imds"

    [policy]
    path = "/etc/transcode-confidential/policy"

    [admin]
    listen = "tcp:127.0.0.1:9100"

Exit codes: 0 stopped as told; 2 usage; 3 the configuration is malformed or unreadable;
6 an endpoint cannot be bound or the store cannot be opened."#;

/// The exit code of a failure: 3 for a configuration that cannot be read, 6 for whatever is not available.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigError>() {
        ExitCode::from(3)
    } else if error.is::<StartError>() {
        ExitCode::from(6)
    } else {
        ExitCode::FAILURE
    }
}

/// Starts logging to standard error.
pub fn start_logging(arguments: &Arguments) {
    let filter = tracing_subscriber::EnvFilter::new(&arguments.log);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::try_new(text).map(|_| text.to_owned())
}

/// Allows this process as many open files as the system lets it have: every client takes two.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, current = ?limit.current, "the limit of open files cannot be raised");
    }
}
