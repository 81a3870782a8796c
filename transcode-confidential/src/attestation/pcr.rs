//! Platform configuration registers: what the hypervisor measured, and what the enclave added.

use std::{collections::BTreeMap, fmt, str::FromStr};

use sha2::{Digest as _, Sha384};
use thiserror::Error;

/// Number of a platform configuration register, 0 to 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PcrIndex(u8);

impl PcrIndex {
    /// The whole enclave image file.
    pub const IMAGE: Self = Self(0);
    /// The kernel and the boot ramdisk.
    pub const KERNEL: Self = Self(1);
    /// The application ramdisks, without the boot ramdisk.
    pub const APPLICATION: Self = Self(2);
    /// The IAM role of the parent instance.
    pub const PARENT_ROLE: Self = Self(3);
    /// The id of the parent instance: another one on every instance.
    pub const PARENT_INSTANCE: Self = Self(4);
    /// The certificate that signed the image file.
    pub const IMAGE_SIGNER: Self = Self(8);
    /// The first register that the enclave itself may extend and lock.
    pub const FIRST_OWN: Self = Self(16);
    /// The registers without which no image is identified.
    pub const OF_IMAGE: [Self; 3] = [Self::IMAGE, Self::KERNEL, Self::APPLICATION];
    /// Number of registers.
    pub const COUNT: u8 = 32;

    /// The register of that number, or `None` above 31.
    pub const fn new(index: u8) -> Option<Self> {
        if index < Self::COUNT { Some(Self(index)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for PcrIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCR{}", self.0)
    }
}

/// Content of a register: a SHA-384 digest, written as 96 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PcrValue([u8; Self::LEN]);

/// A text that is not 96 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a PCR value is 96 hexadecimal digits")]
pub struct PcrValueError;

impl PcrValue {
    /// Length of a value, in bytes.
    pub const LEN: usize = 48;
    /// The value of a register that nothing was measured into.
    pub const ZERO: Self = Self([0; Self::LEN]);

    /// The value of those bytes.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Whether all bytes are zero, as in PCR0 to PCR2 of an enclave in debug mode.
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// The value after the register was extended with `data`: `SHA-384(value || data)`.
    #[must_use]
    pub fn extended(&self, data: &[u8]) -> Self {
        Self(Sha384::new().chain_update(self.0).chain_update(data).finalize().into())
    }
}

impl TryFrom<&[u8]> for PcrValue {
    type Error = PcrValueError;

    fn try_from(bytes: &[u8]) -> Result<Self, PcrValueError> {
        bytes.try_into().map(Self).map_err(|_| PcrValueError)
    }
}

impl FromStr for PcrValue {
    type Err = PcrValueError;

    fn from_str(text: &str) -> Result<Self, PcrValueError> {
        let mut bytes = [0; Self::LEN];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| PcrValueError)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for PcrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PcrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PcrValue({self})")
    }
}

/// Some registers with their values. A document lists locked registers only, so it may leave any out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pcrs(BTreeMap<PcrIndex, PcrValue>);

impl Pcrs {
    /// The value of one register, where it is listed.
    pub fn get(&self, index: PcrIndex) -> Option<&PcrValue> {
        self.0.get(&index)
    }

    /// All listed registers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (PcrIndex, &PcrValue)> {
        self.0.iter().map(|(index, value)| (*index, value))
    }

    /// Lists a register, replacing its former value.
    pub fn insert(&mut self, index: PcrIndex, value: PcrValue) {
        self.0.insert(index, value);
    }

    /// Number of listed registers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no register is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(PcrIndex, PcrValue)> for Pcrs {
    fn from_iter<T: IntoIterator<Item = (PcrIndex, PcrValue)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// A map from the register's number to its value in hexadecimal.
impl serde::Serialize for Pcrs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(index, value)| (index.0.to_string(), value.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_holds_48_bytes_and_there_are_32_of_them() {
        assert_eq!(PcrIndex::new(31).map(PcrIndex::get), Some(31));
        assert_eq!(PcrIndex::new(32), None);
        assert!(PcrValue::try_from([0; 47].as_slice()).is_err());
        assert!(PcrValue::try_from([0; 49].as_slice()).is_err());
        assert!("00".repeat(47).parse::<PcrValue>().is_err());
        assert_eq!("00".repeat(48).parse(), Ok(PcrValue::ZERO));
    }

    #[test]
    fn extending_chains_sha_384_over_the_old_value_and_the_data() {
        let mut input = vec![0; 48];
        input.extend_from_slice(b"abc");
        let expected = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA384, &input);
        assert_eq!(PcrValue::ZERO.extended(b"abc").as_bytes().as_slice(), expected.as_ref());
    }
}
