use std::path::PathBuf;

use clap::Args;
use transcode_confidential::{ids::KeyId, message::FrameLength};

use super::{ReceiptFile, parse_pair};

#[derive(Debug, Args)]
pub(in crate::cli) struct Encrypt {
    /// The key
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) key: KeyId,
    /// Frame length of the messages that --local writes, in bytes
    #[arg(long, value_name = "BYTES", requires = "local", value_parser = parse_frame_length)]
    pub(in crate::cli) frame_length: Option<FrameLength>,
    #[command(flatten)]
    pub(in crate::cli) content: Content,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Decrypt {
    /// Refuse a message under any other key
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) key: Option<KeyId>,
    #[command(flatten)]
    pub(in crate::cli) content: Content,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Rewrap {
    /// Refuse a message under any other key
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) key: Option<KeyId>,
    #[command(flatten)]
    pub(in crate::cli) content: Content,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Content {
    /// A pair of the encryption context: authenticated, not secret; when decrypting, required of the message
    #[arg(long, value_name = "K=V", value_parser = parse_pair)]
    pub(in crate::cli) context: Vec<(String, String)>,
    /// Names the content on the record
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) content_id: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) receipt: ReceiptFile,
    #[command(flatten)]
    pub(in crate::cli) local: Local,
    /// The file to read [default: standard input, also written -]; several with --out-dir
    #[arg(value_name = "IN")]
    pub(in crate::cli) input: Vec<PathBuf>,
    /// The file to write, put in place only when all of it is verified [default: standard output, also written -]
    #[arg(short, long, value_name = "OUT")]
    pub(in crate::cli) output: Option<PathBuf>,
}

/// Work on this machine's own cores.
#[derive(Debug, Args)]
pub(in crate::cli) struct Local {
    /// Work on this machine's own cores: the enclave issues or unwraps the data key of the message, content stays here
    #[arg(long)]
    pub(in crate::cli) local: bool,
    /// Write one file for each IN into this directory: NAME.tce for NAME, and NAME for NAME.tce
    #[arg(long, value_name = "DIR", requires = "local", conflicts_with_all = ["output", "path"])]
    pub(in crate::cli) out_dir: Option<PathBuf>,
    /// How many cores [default: all]
    #[arg(long, value_name = "N", requires = "local")]
    pub(in crate::cli) threads: Option<std::num::NonZeroUsize>,
}

fn parse_frame_length(text: &str) -> Result<FrameLength, String> {
    let bytes = text.parse().map_err(|_| "write a number".to_owned())?;
    match FrameLength::new(bytes) {
        Ok(length) if bytes >= 4096 => Ok(length),
        _ => Err("4096 to 16777216 bytes".into()),
    }
}
