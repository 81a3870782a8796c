//! The program of the images that the boot test boots: the one that ships, but for whom it trusts. No mock is in it; those are
//! outside of the machine. The roots are compiled in, as AWS's are into the other.

use std::{error::Error, process::ExitCode};

use enclave_app::program::{self, Trust};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use transcode_confidential::attestation::TrustRoot;

/// The root of the attestation documents, DER in hexadecimal.
const NSM_ROOT: Option<&str> = option_env!("BOOT_IMAGE_NSM_ROOT");
/// The root of KMS's certificate, likewise.
const KMS_ROOT: Option<&str> = option_env!("BOOT_IMAGE_KMS_ROOT");

fn main() -> ExitCode {
    program::main(trust)
}

fn trust() -> Result<Trust, Box<dyn Error + Send + Sync>> {
    let (Some(nsm), Some(kms)) = (NSM_ROOT, KMS_ROOT) else {
        return Err("built without roots; eif/boot-test/run gives them".into());
    };
    let mut kms_roots = RootCertStore::empty();
    kms_roots.add(CertificateDer::from(hex::decode(kms)?))?;
    Ok(Trust { attestation_root: TrustRoot::from_der(&hex::decode(nsm)?)?, kms_roots })
}
