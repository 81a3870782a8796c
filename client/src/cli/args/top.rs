use clap::Args;

/// Watch a deployment: figures from the proxy, and the enclave's own status where --server and --identity are known.
#[derive(Debug, Args)]
pub(in super::super) struct TopArgs {
    /// The proxy's admin endpoint: tcp:HOST:PORT, unix:PATH
    #[arg(long, value_name = "ADDR", default_value = "tcp:127.0.0.1:9100")]
    pub(in super::super) admin: String,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(in super::super) interval: u64,
    /// Look once, and say what there is
    #[arg(long)]
    pub(in super::super) once: bool,
}
