//! The NSM of the enclave that this process runs in.

use aws_nitro_enclaves_nsm_api::{
    api::{ErrorCode, Request, Response},
    driver,
};
use transcode_confidential::attestation::{PcrIndex, PcrValue};

use super::{AttestationRequest, Nsm, NsmError, PcrState};

/// `/dev/nsm`, open until this is dropped.
#[derive(Debug)]
pub struct NsmDevice {
    descriptor: i32,
}

impl NsmDevice {
    /// Opens the device.
    ///
    /// # Errors
    /// [`NsmError::NoDevice`].
    pub fn open() -> Result<Self, NsmError> {
        match driver::nsm_init() {
            descriptor if descriptor >= 0 => Ok(Self { descriptor }),
            _ => Err(NsmError::NoDevice),
        }
    }

    fn call(&self, request: Request, index: Option<PcrIndex>) -> Result<Response, NsmError> {
        match driver::nsm_process_request(self.descriptor, request) {
            Response::Error(code) => Err(refusal(&code, index)),
            answer => Ok(answer),
        }
    }
}

impl Drop for NsmDevice {
    fn drop(&mut self) {
        driver::nsm_exit(self.descriptor);
    }
}

impl Nsm for NsmDevice {
    fn attest(&self, request: AttestationRequest) -> Result<Vec<u8>, NsmError> {
        request.check_limits()?;
        let AttestationRequest { public_key, user_data, nonce } = request;
        let request = Request::Attestation {
            public_key: public_key.map(Into::into),
            user_data: user_data.map(Into::into),
            nonce: nonce.map(Into::into),
        };
        match self.call(request, None)? {
            Response::Attestation { document } => Ok(document),
            _ => Err(NsmError::UnexpectedAnswer),
        }
    }

    fn describe_pcr(&self, index: PcrIndex) -> Result<PcrState, NsmError> {
        match self.call(Request::DescribePCR { index: index.get().into() }, Some(index))? {
            Response::DescribePCR { lock, data } => Ok(PcrState { value: value(&data)?, locked: lock }),
            _ => Err(NsmError::UnexpectedAnswer),
        }
    }

    fn extend_pcr(&self, index: PcrIndex, data: &[u8]) -> Result<PcrValue, NsmError> {
        match self.call(Request::ExtendPCR { index: index.get().into(), data: data.to_vec() }, Some(index))? {
            Response::ExtendPCR { data } => value(&data),
            _ => Err(NsmError::UnexpectedAnswer),
        }
    }

    fn lock_pcr(&self, index: PcrIndex) -> Result<(), NsmError> {
        match self.call(Request::LockPCR { index: index.get().into() }, Some(index))? {
            Response::LockPCR => Ok(()),
            _ => Err(NsmError::UnexpectedAnswer),
        }
    }

    fn random(&self, mut out: &mut [u8]) -> Result<(), NsmError> {
        while !out.is_empty() {
            let Response::GetRandom { random } = self.call(Request::GetRandom, None)? else {
                return Err(NsmError::UnexpectedAnswer);
            };
            let count = random.len().min(out.len());
            let (filled, rest) = out.split_at_mut(count);
            if filled.is_empty() {
                return Err(NsmError::UnexpectedAnswer);
            }
            filled.iter_mut().zip(&random).for_each(|(to, from)| *to = *from);
            out = rest;
        }
        Ok(())
    }
}

fn value(bytes: &[u8]) -> Result<PcrValue, NsmError> {
    PcrValue::try_from(bytes).map_err(|_| NsmError::UnexpectedAnswer)
}

fn refusal(code: &ErrorCode, index: Option<PcrIndex>) -> NsmError {
    let code = match (code, index) {
        (ErrorCode::ReadOnlyIndex, Some(index)) => return NsmError::ReadOnly(index),
        (ErrorCode::Success, _) => return NsmError::UnexpectedAnswer,
        (ErrorCode::InvalidArgument, _) => "invalid argument",
        (ErrorCode::InvalidIndex, _) => "invalid register",
        (ErrorCode::InvalidResponse, _) => "invalid response",
        (ErrorCode::ReadOnlyIndex, None) => "read-only register",
        (ErrorCode::InvalidOperation, _) => "invalid operation",
        (ErrorCode::BufferTooSmall, _) => "buffer too small",
        (ErrorCode::InputTooLarge, _) => "input too large",
        (ErrorCode::InternalError, _) => "internal error",
    };
    NsmError::Refused { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_of_an_enclave_there_is_no_device() {
        if !std::path::Path::new("/dev/nsm").exists() {
            assert_eq!(NsmDevice::open().err(), Some(NsmError::NoDevice));
        }
    }

    #[test]
    fn a_read_only_register_is_named() {
        let index = PcrIndex::IMAGE;
        assert_eq!(refusal(&ErrorCode::ReadOnlyIndex, Some(index)), NsmError::ReadOnly(index));
        assert_eq!(refusal(&ErrorCode::InputTooLarge, None), NsmError::Refused { code: "input too large" });
    }
}
