//! Key material in memory, and the wrapped records that it comes back from.

use std::{collections::HashMap, sync::Arc};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use tokio::{sync::OnceCell, time::Instant};
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    cbor::{CborError, Reader, Writer},
    ids::{KeyId, KeyVersion},
    secret::KeyMaterial,
};

use crate::{
    kms::{KeyArn, KmsClient, KmsError, WrapContext},
    lock::{Mutex, MutexGuard, PoisonError},
};

/// Greatest length of a ciphertext blob of KMS, in bytes.
const BLOB_LIMIT: usize = 6144;
const ARN_LIMIT: usize = 2048;

/// A key as KMS wrapped it: the record that lies beside its entry in the log.
///
/// Deterministic CBOR: `{0: 1, 1: ciphertext blob, 2: KMS key ARN, 3: key check (16 bytes)}`. The encryption context is not in
/// it: it follows from the place where the record is used. The key check is what an envelope of KMS lacks: proof that the
/// key that comes back is the one that went in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedRecord {
    /// The ciphertext blob of KMS.
    pub blob: Vec<u8>,
    /// The KMS key.
    pub kms_key: String,
    /// First 16 bytes of `SHA-256("transcode-confidential/key-check/v1" || 0x00 || material)`. Tells nothing about 256 random
    /// bits.
    pub check: [u8; 16],
}

/// Why a version's material is not at hand.
#[derive(Debug, Clone, Error)]
pub enum UnwrapError {
    /// KMS did not give it.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// KMS gave another key than was wrapped.
    #[error("KMS unwrapped another key than was wrapped")]
    OtherKey,
}

impl WrappedRecord {
    /// The record of a key that KMS wrapped.
    pub fn new(blob: Vec<u8>, kms_key: &KeyArn, material: &KeyMaterial) -> Self {
        Self { blob, kms_key: kms_key.as_str().to_owned(), check: key_check(material) }
    }

    /// Whether `material` is what was wrapped.
    pub fn is_of(&self, material: &KeyMaterial) -> bool {
        self.check.ct_eq(&key_check(material)).into()
    }

    /// Has KMS unwrap the record, and forgets the key: to know that it could be had.
    ///
    /// # Errors
    /// [`UnwrapError`].
    pub async fn prove(&self, kms: &KmsClient, context: &WrapContext) -> Result<(), UnwrapError> {
        let material = kms.decrypt(&self.blob, context).await?;
        if self.is_of(&material) { Ok(()) } else { Err(UnwrapError::OtherKey) }
    }

    /// The record's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(4).uint(0).uint(1).uint(1).bytes(&self.blob).uint(2).text(&self.kms_key).uint(3).bytes(&self.check);
        out.into_bytes()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        let mut map = reader.int_map(4)?;
        if map.required(0)?.uint()? != 1 {
            return Err(CborError::Range);
        }
        let blob = map.required(1)?.bytes(BLOB_LIMIT)?.to_vec();
        let kms_key = map.required(2)?.text(ARN_LIMIT)?.to_owned();
        let check = map.required(3)?.array_of()?;
        map.end()?;
        reader.end()?;
        Ok(Self { blob, kms_key, check })
    }
}

/// Key versions that are usable, each unwrapped when it is first needed.
#[derive(Default)]
pub struct Keyring {
    slots: Mutex<HashMap<(KeyId, KeyVersion), Arc<Slot>>>,
}

struct Slot {
    record: WrappedRecord,
    material: OnceCell<Arc<KeyMaterial>>,
    revoked: CancellationToken,
    failure: Mutex<Option<(Instant, UnwrapError)>>,
}

/// Material that is in use. It stays in memory until the last use ends, but [`KeyInUse::revoked`] tells each use to end.
pub struct KeyInUse {
    material: Arc<KeyMaterial>,
    revoked: CancellationToken,
}

impl KeyInUse {
    /// The material.
    pub fn material(&self) -> &KeyMaterial {
        &self.material
    }

    /// Cancelled when the key is revoked: whatever is still being released stops.
    pub const fn revoked(&self) -> &CancellationToken {
        &self.revoked
    }
}

impl Keyring {
    /// Adds a wrapped version, to be unwrapped when it is needed.
    pub fn insert_wrapped(&self, id: KeyId, version: KeyVersion, record: WrappedRecord) {
        self.insert(id, version, Slot::new(record, None));
    }

    /// Adds a version whose material is at hand. Call it in the critical section that decides upon the key, so that a
    /// revocation cannot come in between.
    pub fn insert_material(&self, id: KeyId, version: KeyVersion, record: WrappedRecord, material: KeyMaterial) {
        self.insert(id, version, Slot::new(record, Some(material)));
    }

    /// Forgets every version of a key, and ends what is done with them.
    pub fn revoke(&self, id: &KeyId) {
        self.slots().retain(|(key, _), slot| {
            if key == id {
                slot.revoked.cancel();
            }
            key != id
        });
    }

    /// Forgets one version, and ends what is done with it.
    pub fn forget(&self, id: &KeyId, version: KeyVersion) {
        if let Some(slot) = self.slots().remove(&(id.clone(), version)) {
            slot.revoked.cancel();
        }
    }

    /// Ends what is done with the versions of a key that `which` picks. They stay known, for when they may be used again.
    pub fn interrupt(&self, id: &KeyId, which: impl Fn(KeyVersion) -> bool) {
        for ((_, _), slot) in self.slots().iter_mut().filter(|((key, version), _)| key == id && which(*version)) {
            slot.revoked.cancel();
            *slot = Arc::new(Slot::new(slot.record.clone(), None).with_material(slot.material.get().cloned()));
        }
    }

    /// Material of a version, by an attested call to KMS where it is not in memory. Concurrent callers share one call.
    ///
    /// # Errors
    /// [`UnwrapError`]; `None` inside `Ok` where the version is not known (any more).
    pub async fn material(
        &self,
        kms: &KmsClient,
        context: impl FnOnce() -> WrapContext,
        id: &KeyId,
        version: KeyVersion,
    ) -> Result<Option<KeyInUse>, UnwrapError> {
        let slot = self.slots().get(&(id.clone(), version)).map(Arc::clone);
        let Some(slot) = slot else { return Ok(None) };
        let asked = Instant::now();
        let unwrapped = slot.material.get_or_try_init(async || {
            slot.failure_since(asked)?;
            let unwrapped = slot.unwrap(kms, context()).await;
            slot.remember(unwrapped)
        });
        let material = Arc::clone(unwrapped.await?);
        Ok((!slot.revoked.is_cancelled()).then(|| KeyInUse { material, revoked: slot.revoked.clone() }))
    }

    fn insert(&self, id: KeyId, version: KeyVersion, slot: Slot) {
        self.slots().insert((id, version), Arc::new(slot));
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<(KeyId, KeyVersion), Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn new(record: WrappedRecord, material: Option<KeyMaterial>) -> Self {
        Self {
            record,
            material: OnceCell::new_with(material.map(Arc::new)),
            revoked: CancellationToken::new(),
            failure: Mutex::new(None),
        }
    }

    fn with_material(mut self, material: Option<Arc<KeyMaterial>>) -> Self {
        self.material = OnceCell::new_with(material);
        self
    }

    async fn unwrap(&self, kms: &KmsClient, context: WrapContext) -> Result<Arc<KeyMaterial>, UnwrapError> {
        let material = kms.decrypt(&self.record.blob, &context).await?;
        if self.record.is_of(&material) { Ok(Arc::new(material)) } else { Err(UnwrapError::OtherKey) }
    }

    /// Callers that wait for the same call share its outcome, failures included.
    fn failure_since(&self, asked: Instant) -> Result<(), UnwrapError> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((at, error)) if *at >= asked => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn remember<T>(&self, outcome: Result<T, UnwrapError>) -> Result<T, UnwrapError> {
        let failure = outcome.as_ref().err().map(|error| (Instant::now(), error.clone()));
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        outcome
    }
}

/// Whether a record is by the KMS key that the configuration names; a record by another one is of no use.
pub fn is_by(record: &WrappedRecord, key: &KeyArn) -> bool {
    record.kms_key == key.as_str()
}

fn key_check(material: &KeyMaterial) -> [u8; 16] {
    let hash = Sha256::new().chain_update(b"transcode-confidential/key-check/v1\0").chain_update(material.expose());
    let mut check = [0; 16];
    check.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_bytes_and_knows_its_own_key_only() {
        let key: KeyArn =
            "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap();
        let record = WrappedRecord::new(vec![1; 184], &key, &KeyMaterial::from_bytes([7; 32]));
        assert_eq!(WrappedRecord::from_bytes(&record.to_bytes()).unwrap(), record);
        assert!(is_by(&record, &key));
        assert!(record.is_of(&KeyMaterial::from_bytes([7; 32])));
        for bit in 0..256 {
            let mut other = [7; 32];
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!record.is_of(&KeyMaterial::from_bytes(other)));
        }
    }
}
