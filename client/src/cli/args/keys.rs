use std::path::PathBuf;

use clap::{Args, Subcommand};
use transcode_confidential::{
    ids::{KeyId, KeyVersion},
    protocol::api::IDEMPOTENCY_KEY_LIMIT,
};

use super::parse_version;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeysVerb {
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
pub(in crate::cli) struct Expected {
    /// Only where this version is active
    #[arg(long, value_name = "N", value_parser = parse_version)]
    pub(in crate::cli) expected_version: Option<KeyVersion>,
}

/// What every command has that changes something.
#[derive(Debug, Args)]
pub(in crate::cli) struct Once {
    /// Sent again under the same one, within a day, the answer is repeated and nothing is done twice [default: a fresh one]
    #[arg(long, value_name = "KEY", value_parser = parse_idempotency_key)]
    pub(in crate::cli) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) receipt: ReceiptFile,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReceiptFile {
    /// Keep the receipt here: it proves the event against whoever holds the log
    #[arg(long = "receipt", value_name = "FILE")]
    pub(in crate::cli) path: Option<PathBuf>,
}

fn parse_idempotency_key(text: &str) -> Result<String, String> {
    let suits = (1..=IDEMPOTENCY_KEY_LIMIT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    suits.then(|| text.to_owned()).ok_or_else(|| format!("1 to {IDEMPOTENCY_KEY_LIMIT} visible ASCII characters"))
}
