//! Who may do what, and who is who: policies and identities.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use transcode_confidential::ids::{Epoch, LogId, Principal, RootHash};

use super::Once;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PkiVerb {
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
pub(in crate::cli) enum PolicyVerb {
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
pub(in crate::cli) struct RestoreArgs {
    /// The log
    pub(in crate::cli) log_id: LogId,
    /// Number of events of the copy, as audit verify shows its head
    #[arg(long, value_name = "N")]
    pub(in crate::cli) size: u64,
    /// Root of the copy, as audit verify shows its head
    #[arg(long, value_name = "HEX")]
    pub(in crate::cli) root: RootHash,
    /// The deployment, as in the enclave's configuration
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) deployment: String,
    /// Greatest epoch that anybody knows of and the copy does not have; 0 where there is none
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_epoch)]
    pub(in crate::cli) lost_epoch: Epoch,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: String,
    /// The authority's private key
    #[arg(long, value_name = "FILE", default_value = "authority.key")]
    pub(in crate::cli) key: PathBuf,
    /// The document to write [default: restore.cose]
    #[arg(short, long, value_name = "OUT")]
    pub(in crate::cli) output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KmsVerb {
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
pub(in crate::cli) enum KmsFormat {
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

fn parse_epoch(text: &str) -> Result<Epoch, String> {
    text.parse().map(Epoch).map_err(|_| "write a number".into())
}
