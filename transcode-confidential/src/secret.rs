//! Secrets have a type of their own: zeroized on drop, not `Clone`, and impossible to print.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::entropy::{Entropy, EntropyError};

/// 256 bits of key material.
///
/// ```
/// use transcode_confidential::secret::KeyMaterial;
///
/// let key = KeyMaterial::from_bytes([7; 32]);
/// assert_eq!(format!("{key:?}"), "KeyMaterial(secret)");
/// ```
///
/// It can be neither cloned nor displayed:
///
/// ```compile_fail
/// let key = transcode_confidential::secret::KeyMaterial::from_bytes([7; 32]);
/// let copy = key.clone();
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial(Box<[u8; 32]>);

impl KeyMaterial {
    /// Takes over the given bytes and wipes the copy that was passed.
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let material = Self(Box::new(bytes));
        bytes.zeroize();
        material
    }

    /// Draws fresh material.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut material = Self(Box::new([0; 32]));
        entropy.fill(material.0.as_mut_slice())?;
        Ok(material)
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMaterial(secret)")
    }
}
