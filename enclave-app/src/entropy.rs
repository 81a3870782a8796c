//! The enclave's randomness: the kernel's generator and a pool fed by the NSM and by KMS, combined.

use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha512};
use transcode_confidential::entropy::{Entropy, EntropyError, OsEntropy};
use zeroize::Zeroizing;

/// Output is unpredictable as long as one of its sources is: each block is `SHA-512(pool || counter || 64 bytes of the
/// kernel's)`, cut to 32 bytes, and the pool moves on by a hash after every call.
#[derive(Default)]
pub struct EnclaveEntropy {
    pool: Mutex<Zeroizing<Vec<u8>>>,
}

impl EnclaveEntropy {
    /// A pool that nothing was mixed into yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Mixes `input` into the pool. Bad input does no harm.
    pub fn mix(&self, input: &[u8]) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        *pool = digest(&[b"mix", &pool, input]);
    }
}

impl Entropy for EnclaveEntropy {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        for (counter, block) in (0_u64..).zip(out.chunks_mut(32)) {
            let mut kernel = Zeroizing::new([0; 64]);
            OsEntropy.fill(&mut *kernel)?;
            let mixed = digest(&[b"out", &pool, &counter.to_be_bytes(), &*kernel]);
            block.iter_mut().zip(mixed.iter()).for_each(|(to, from)| *to = *from);
        }
        *pool = digest(&[b"next", &pool]);
        Ok(())
    }
}

impl std::fmt::Debug for EnclaveEntropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EnclaveEntropy(secret)")
    }
}

fn digest(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut hasher = Sha512::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    Zeroizing::new(hasher.finalize().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_outputs_are_alike_whatever_was_mixed_in() {
        let entropy = EnclaveEntropy::new();
        let mut seen = std::collections::HashSet::new();
        for round in 0..100_u8 {
            let mut out = [0; 70];
            entropy.fill(&mut out).unwrap();
            assert_ne!(out[..32], out[32..64]);
            assert!(seen.insert(out));
            entropy.mix(&[round / 2]);
        }
    }
}
