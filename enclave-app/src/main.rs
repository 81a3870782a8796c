//! The enclave's one binary. It takes no arguments and reads no environment: the image decides everything.

use std::process::ExitCode;

use enclave_app::{
    kms::roots,
    program::{self, Trust},
};
use transcode_confidential::attestation::TrustRoot;

fn main() -> ExitCode {
    program::main(|| Ok(Trust { attestation_root: TrustRoot::aws(), kms_roots: roots::amazon()? }))
}
