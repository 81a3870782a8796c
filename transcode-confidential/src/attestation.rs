//! Placeholder until the verifier lands.
#![allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Purpose {
    Kms = 1,
    Epoch = 2,
    Channel = 3,
    Head = 4,
    Caller = 5,
}
impl Purpose {
    pub const fn code(self) -> u64 {
        self as u64
    }
    pub const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Kms),
            2 => Some(Self::Epoch),
            3 => Some(Self::Channel),
            4 => Some(Self::Head),
            5 => Some(Self::Caller),
            _ => None,
        }
    }
}
