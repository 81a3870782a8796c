//! How a verifier knows that a document was made just now, and for it.

use std::{fmt, time::Duration};

use subtle::ConstantTimeEq as _;

use super::{claims::Claims, refusal::Refusal};
use crate::{
    entropy::{Entropy, EntropyError},
    time::Timestamp,
};

/// 32 bytes that a document must repeat. One is good for one verification, whatever comes of it: it is not `Clone`, and
/// verifying consumes it.
///
/// ```compile_fail
/// use transcode_confidential::{attestation::Nonce, entropy::OsEntropy};
///
/// let nonce = Nonce::generate(&OsEntropy).unwrap();
/// let again = nonce.clone();
/// ```
pub struct Nonce([u8; Self::LEN]);

impl Nonce {
    /// Length, in bytes.
    pub const LEN: usize = 32;

    /// Draws a fresh one.
    ///
    /// # Errors
    /// [`EntropyError`].
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = [0; Self::LEN];
        entropy.fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// A nonce that is derived from something that both sides know and that occurs once, such as a challenge and the
    /// exporter of a TLS session.
    pub const fn derived(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the request.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({})", hex::encode(self.0))
    }
}

/// Which nonce a document must carry.
#[derive(Debug)]
pub enum ExpectedNonce {
    /// This one, compared in constant time.
    Exactly(Nonce),
    /// Any or none. Within the greatest accepted age the document may then be a replay: for a verifier that binds it by
    /// other means, as a TLS key or a hash of the request in it.
    Any,
}

/// What a live document must satisfy beyond being authentic.
#[derive(Debug)]
pub struct Freshness {
    /// The nonce that was sent.
    pub nonce: ExpectedNonce,
    /// Greatest accepted age. Leaf certificates live three hours, so more than that has no effect.
    pub max_age: Duration,
    /// How far the document's clock may be ahead of the verifier's.
    pub future_tolerance: Duration,
}

impl Freshness {
    /// Greatest age that [`Freshness::with_nonce`] accepts.
    pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(5 * 60);
    /// Difference between clocks that the constructors accept.
    pub const DEFAULT_FUTURE_TOLERANCE: Duration = Duration::from_secs(60);

    /// A document that answers `nonce`, with the default age and tolerance.
    pub const fn with_nonce(nonce: Nonce) -> Self {
        Self {
            nonce: ExpectedNonce::Exactly(nonce),
            max_age: Self::DEFAULT_MAX_AGE,
            future_tolerance: Self::DEFAULT_FUTURE_TOLERANCE,
        }
    }

    /// A document with any nonce or none, no older than `max_age`.
    pub const fn within(max_age: Duration) -> Self {
        Self { nonce: ExpectedNonce::Any, max_age, future_tolerance: Self::DEFAULT_FUTURE_TOLERANCE }
    }

    pub(super) fn check(self, claims: &Claims, now: Timestamp) -> Result<(), Refusal> {
        let (age, ahead) = (now.since(claims.timestamp()), claims.timestamp().since(now));
        if age > self.max_age {
            return Err(Refusal::TooOld { age, max_age: self.max_age });
        }
        if ahead > self.future_tolerance {
            return Err(Refusal::FromTheFuture { ahead, tolerance: self.future_tolerance });
        }
        match (self.nonce, claims.nonce()) {
            (ExpectedNonce::Any, _) => Ok(()),
            (ExpectedNonce::Exactly(_), None) => Err(Refusal::NonceMissing),
            (ExpectedNonce::Exactly(Nonce(sent)), Some(found)) if bool::from(sent.ct_eq(found)) => Ok(()),
            (ExpectedNonce::Exactly(_), Some(_)) => Err(Refusal::NonceMismatch),
        }
    }
}
