//! The log key: made at genesis, wrapped by KMS, unwrapped by attestation at every boot.

use std::time::Duration;

use hkdf::Hkdf;
use sha2::Sha256;
use transcode_confidential::{ids::LogId, secret::KeyMaterial, signature::SigningKey};
use zeroize::Zeroizing;

use super::BootError;
use crate::{
    keyring::WrappedRecord,
    kms::{KmsClient, KmsError, WrapContext},
};

const INFO: &[u8] = b"transcode-confidential/log-key/v1";
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Gets the log key: by unwrapping `record`, or a new one where the log is new. Gives the record's bytes as well.
///
/// Waits for KMS as long as KMS may become reachable.
pub(super) async fn obtain(
    kms: &KmsClient,
    log_id: LogId,
    record: Option<WrappedRecord>,
) -> Result<(SigningKey, Vec<u8>), BootError> {
    let context = WrapContext::log_key(log_id);
    let mut pause = RETRY.0;
    loop {
        let outcome = match &record {
            Some(record) => kms.decrypt(&record.blob, &context).await.map(|material| (material, record.clone())),
            None => kms.generate_data_key(&context).await.map(|made| {
                let record = WrappedRecord::new(made.ciphertext, kms.key(), &made.plaintext);
                (made.plaintext, record)
            }),
        };
        match outcome {
            Ok((material, record)) => return Ok((derive(log_id, &material)?, record.to_bytes())),
            Err(error) if waiting_helps(&error) => tracing::warn!(%error, next = error.next_step(), "waiting for KMS"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

const fn waiting_helps(error: &KmsError) -> bool {
    error.retryable()
}

/// `HKDF-SHA-256(salt = log id, ikm = data key, info)` is the Ed25519 seed.
fn derive(log_id: LogId, material: &KeyMaterial) -> Result<SigningKey, BootError> {
    let mut seed = Zeroizing::new([0; 32]);
    let hkdf = Hkdf::<Sha256>::new(Some(log_id.as_bytes()), material.expose());
    // 32 bytes is within what HKDF-SHA-256 can give (RFC 5869 section 2.3).
    hkdf.expand(INFO, &mut *seed).map_err(|_| BootError::WrongLogKey)?;
    Ok(SigningKey::from_seed(&KeyMaterial::copied_from(&seed))?)
}
