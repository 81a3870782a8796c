use std::time::Duration;

use super::KeyError;
use crate::time::Timestamp;

/// Most uses that any version is granted: AES-GCM with random 96-bit IVs under one key (NIST SP 800-38D section 8.3).
pub const USES_CAP: u64 = 1 << 32;

/// When a key rotates.
///
/// ```
/// use transcode_confidential::audit::KeyRotationPolicy;
///
/// let policy = KeyRotationPolicy { max_age_secs: 3600, max_uses: 10_000, require_attestation: true };
/// assert!(policy.check().is_ok());
/// assert!(KeyRotationPolicy { max_uses: 0, ..policy }.check().is_err(), "zero does not mean unlimited");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRotationPolicy {
    /// Greatest age of a version, in seconds.
    pub max_age_secs: u64,
    /// Most uses of a version, at most [`USES_CAP`].
    pub max_uses: u64,
    /// Whether the enclave attests itself anew before a rotation takes effect.
    pub require_attestation: bool,
}

/// Whether the active version of a key should be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RotationNeed {
    /// Not yet.
    None,
    /// At 80 % of its age or uses: time to begin.
    Due,
    /// At its limit: it grants no further use.
    Required,
}

impl KeyRotationPolicy {
    /// Checks that the limits limit.
    ///
    /// # Errors
    /// [`KeyError::Policy`] for zero, and for more uses than [`USES_CAP`].
    pub const fn check(&self) -> Result<(), KeyError> {
        if self.max_age_secs == 0 {
            return Err(KeyError::Policy("max_age_secs must not be 0"));
        }
        if self.max_uses == 0 {
            return Err(KeyError::Policy("max_uses must not be 0"));
        }
        if self.max_uses > USES_CAP {
            return Err(KeyError::Policy("max_uses must not exceed 2^32"));
        }
        Ok(())
    }

    /// Whether a version of this age and use should be replaced at `now`.
    pub fn need(&self, created_at: Timestamp, uses: u64, now: Timestamp) -> RotationNeed {
        let age = now.since(created_at);
        let max_age = Duration::from_secs(self.max_age_secs);
        if age >= max_age || uses >= self.max_uses {
            RotationNeed::Required
        } else if age >= max_age / 5 * 4 || u128::from(uses) * 5 >= u128::from(self.max_uses) * 4 {
            RotationNeed::Due
        } else {
            RotationNeed::None
        }
    }
}

/// A day, 2^20 uses, and no attestation.
impl Default for KeyRotationPolicy {
    fn default() -> Self {
        Self { max_age_secs: 86_400, max_uses: 1 << 20, require_attestation: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: KeyRotationPolicy = KeyRotationPolicy { max_age_secs: 100, max_uses: 10, require_attestation: false };

    #[test]
    fn rotation_is_due_at_four_fifths_and_required_at_the_limit() {
        let born = Timestamp::from_secs(1000);
        for (age, uses, need) in [
            (0, 0, RotationNeed::None),
            (79, 7, RotationNeed::None),
            (80, 0, RotationNeed::Due),
            (0, 8, RotationNeed::Due),
            (99, 9, RotationNeed::Due),
            (100, 0, RotationNeed::Required),
            (0, 10, RotationNeed::Required),
        ] {
            assert_eq!(POLICY.need(born, uses, Timestamp::from_secs(1000 + age)), need, "{age} {uses}");
        }
        assert_eq!(POLICY.need(born, 0, Timestamp(0)), RotationNeed::None, "a clock before the birth of the key");
    }

    #[test]
    fn zero_and_too_much_are_errors() {
        assert!(POLICY.check().is_ok());
        assert!(KeyRotationPolicy { max_age_secs: 0, ..POLICY }.check().is_err());
        assert!(KeyRotationPolicy { max_uses: USES_CAP, ..POLICY }.check().is_ok());
        assert!(KeyRotationPolicy { max_uses: USES_CAP + 1, ..POLICY }.check().is_err());
    }
}
