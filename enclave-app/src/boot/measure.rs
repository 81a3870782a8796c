//! What the NSM measures of us, and what we have it measure.

use std::sync::Arc;

use transcode_confidential::{
    attestation::{ExpectedImage, PcrIndex, PcrValue, Pcrs},
    audit::EpochStatement,
    ids::{Epoch, LeafHash, LogId},
    signature::PublicKey,
};
use zeroize::Zeroizing;

use super::BootError;
use crate::nsm::{MAX_RANDOM, Nsm, NsmError};

/// The register that is extended with the log id.
const LOG_PCR: u8 = 16;
/// The register that is extended with epoch, previous head and epoch key.
const EPOCH_PCR: u8 = 17;

/// PCR0 to PCR2 of the image that we are.
pub(super) fn own_image(nsm: &Arc<dyn Nsm>) -> Result<ExpectedImage, BootError> {
    let mut pcrs = Pcrs::default();
    for index in (0..3).filter_map(PcrIndex::new) {
        let state = nsm.describe_pcr(index)?;
        if state.value.is_zero() {
            return Err(BootError::DebugMode);
        }
        pcrs.insert(index, state.value);
    }
    ExpectedImage::new("this image", None, pcrs).map_err(|_| BootError::DebugMode)
}

/// As much randomness as one call gives.
pub(super) fn nsm_random(nsm: &Arc<dyn Nsm>) -> Result<Zeroizing<Vec<u8>>, NsmError> {
    let mut random = Zeroizing::new(vec![0; MAX_RANDOM]);
    nsm.random(&mut random)?;
    Ok(random)
}

/// Locks PCR16 to the log and PCR17 to the epoch. From here on every document of this boot says which log and epoch it is of.
///
/// # Errors
/// [`NsmError::UnexpectedAnswer`] where a register was touched before: nobody would accept the epoch.
pub(super) fn lock_epoch(
    nsm: &Arc<dyn Nsm>,
    log_id: LogId,
    epoch: Epoch,
    previous: LeafHash,
    key: &PublicKey,
) -> Result<(), NsmError> {
    let contents =
        [(LOG_PCR, log_id.as_bytes().to_vec()), (EPOCH_PCR, EpochStatement::measured_bytes(epoch, previous, key))];
    for (index, content) in contents {
        let index = PcrIndex::new(index).ok_or(NsmError::UnexpectedAnswer)?;
        if nsm.extend_pcr(index, &content)? != PcrValue::new([0; PcrValue::LEN]).extended(&content) {
            return Err(NsmError::UnexpectedAnswer);
        }
        nsm.lock_pcr(index)?;
    }
    Ok(())
}
