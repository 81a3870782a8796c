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
    /// Takes over the given bytes and wipes the copy that was passed. What the caller copied them from is not wiped, and to
    /// pass an array is to copy it: for secrets that are there already, use [`KeyMaterial::copied_from`].
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let material = Self::copied_from(&bytes);
        bytes.zeroize();
        material
    }

    /// Copies the bytes straight to where they stay, so that none remain on the stack. The original is the caller's to wipe.
    pub fn copied_from(bytes: &[u8; 32]) -> Self {
        let mut material = Self(Box::new([0; 32]));
        material.0.copy_from_slice(bytes);
        material
    }

    /// Draws fresh material.
    ///
    /// # Errors
    /// [`EntropyError`].
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

/// Does some work on secrets, and wipes the stack that it used: key schedules and the inner blocks of key derivation lie there
/// by value, in frames of code that is not ours, and moving a value leaves its bytes behind.
///
/// What `work` returns must hold its secrets elsewhere than in itself, as [`KeyMaterial`] does. Wipes 64 KiB, which is more than
/// the ciphers here use; a guarantee it is not, because the language has none to give about the stack. A test searches the
/// memory of a process for what it should have wiped.
pub fn on_a_clean_stack<T>(work: impl FnOnce() -> T) -> T {
    let done = beneath(work);
    wipe();
    done
}

/// In a frame of its own, so that all it leaves is below the caller's.
#[inline(never)]
fn beneath<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe() {
    let mut frame = [0_u64; 8192];
    frame.zeroize();
    std::hint::black_box(&frame);
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMaterial(secret)")
    }
}
