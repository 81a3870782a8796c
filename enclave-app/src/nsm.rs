//! The Nitro Secure Module: attestation documents, measurement registers and randomness from the hypervisor.
//!
//! [`Nsm`] is the device as it is: each call blocks, and calls are served one at a time. [`device`] is the real one,
//! [`queue`] the asynchronous front that lets the more urgent callers pass.

use thiserror::Error;
use transcode_confidential::attestation::{PcrIndex, PcrValue};

pub mod device;
pub mod queue;

pub use device::NsmDevice;
pub use queue::{NsmHandle, Priority};

/// What a document shall say. The device signs it without looking at it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttestationRequest {
    /// The key to attest; at most [`AttestationRequest::MAX_PUBLIC_KEY`] bytes.
    pub public_key: Option<Vec<u8>>,
    /// The data to attest; at most [`AttestationRequest::MAX_USER_DATA`] bytes.
    pub user_data: Option<Vec<u8>>,
    /// The challenge to answer; at most [`AttestationRequest::MAX_NONCE`] bytes.
    pub nonce: Option<Vec<u8>>,
}

impl AttestationRequest {
    /// Longest `public_key`, in bytes.
    pub const MAX_PUBLIC_KEY: usize = 1024;
    /// Longest `user_data`, in bytes.
    pub const MAX_USER_DATA: usize = 512;
    /// Longest `nonce`, in bytes.
    pub const MAX_NONCE: usize = 512;

    /// Refuses what the device would refuse, with the field at fault. Every [`Nsm`] calls this first.
    ///
    /// # Errors
    /// [`NsmError::FieldTooLong`].
    pub fn check_limits(&self) -> Result<(), NsmError> {
        for (name, field, max) in [
            ("public_key", &self.public_key, Self::MAX_PUBLIC_KEY),
            ("user_data", &self.user_data, Self::MAX_USER_DATA),
            ("nonce", &self.nonce, Self::MAX_NONCE),
        ] {
            let length = field.as_ref().map_or(0, Vec::len);
            if length > max {
                return Err(NsmError::FieldTooLong { name, length, max });
            }
        }
        Ok(())
    }
}

/// A measurement register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcrState {
    /// Its content.
    pub value: PcrValue,
    /// Whether it can no longer change until the enclave ends. Documents list locked registers only.
    pub locked: bool,
}

/// Most bytes that one call for randomness gives.
pub const MAX_RANDOM: usize = 256;

/// The device. Calls block.
pub trait Nsm: Send + Sync + 'static {
    /// A fresh attestation document with these fields, as an untagged COSE_Sign1.
    fn attest(&self, request: AttestationRequest) -> Result<Vec<u8>, NsmError>;

    /// Reads a register.
    fn describe_pcr(&self, index: PcrIndex) -> Result<PcrState, NsmError>;

    /// Sets a register to `SHA-384(old value || data)` and gives the new value. Only 16 to 31, and only until locked.
    fn extend_pcr(&self, index: PcrIndex, data: &[u8]) -> Result<PcrValue, NsmError>;

    /// Locks a register. A second time is an error, as it is for the device.
    fn lock_pcr(&self, index: PcrIndex) -> Result<(), NsmError>;

    /// Fills the whole of `out`, by as many calls as that takes.
    fn random(&self, out: &mut [u8]) -> Result<(), NsmError>;
}

impl<N: Nsm + ?Sized> Nsm for std::sync::Arc<N> {
    fn attest(&self, request: AttestationRequest) -> Result<Vec<u8>, NsmError> {
        (**self).attest(request)
    }

    fn describe_pcr(&self, index: PcrIndex) -> Result<PcrState, NsmError> {
        (**self).describe_pcr(index)
    }

    fn extend_pcr(&self, index: PcrIndex, data: &[u8]) -> Result<PcrValue, NsmError> {
        (**self).extend_pcr(index, data)
    }

    fn lock_pcr(&self, index: PcrIndex) -> Result<(), NsmError> {
        (**self).lock_pcr(index)
    }

    fn random(&self, out: &mut [u8]) -> Result<(), NsmError> {
        (**self).random(out)
    }
}

/// Why the device did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NsmError {
    /// There is no device: this is no enclave, or the driver is missing.
    #[error("/dev/nsm could not be opened: not in an enclave, or its kernel has no NSM driver")]
    NoDevice,
    /// A field of a request is longer than the device takes.
    #[error("{name} has {length} bytes, the NSM takes at most {max}")]
    FieldTooLong {
        /// The field.
        name: &'static str,
        /// Its length, in bytes.
        length: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The register is locked, or belongs to the hypervisor.
    #[error("{0} is read-only")]
    ReadOnly(PcrIndex),
    /// The device refused for another reason.
    #[error("the NSM refused: {code}")]
    Refused {
        /// Its error code.
        code: &'static str,
    },
    /// The device answered with something else than was asked for.
    #[error("the NSM's answer does not fit the request")]
    UnexpectedAnswer,
    /// As many requests of this priority wait already as may wait.
    #[error("too many requests wait for the NSM")]
    Busy,
    /// The thread that serves the device has ended.
    #[error("the NSM is no longer served")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_may_be_as_long_as_its_limit_and_no_longer() {
        let request = |key, data, nonce| AttestationRequest {
            public_key: Some(vec![0; key]),
            user_data: Some(vec![0; data]),
            nonce: Some(vec![0; nonce]),
        };
        assert_eq!(request(1024, 512, 512).check_limits(), Ok(()));
        for (request, name) in
            [(request(1025, 0, 0), "public_key"), (request(0, 513, 0), "user_data"), (request(0, 0, 513), "nonce")]
        {
            match request.check_limits() {
                Err(NsmError::FieldTooLong { name: found, length, max }) => {
                    assert_eq!((found, length), (name, max + 1))
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
