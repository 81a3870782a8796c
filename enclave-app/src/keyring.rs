//! Key material in memory, and the wrapped records that it comes back from.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use transcode_confidential::{
    cbor::{CborError, Reader, Writer},
    ids::{KeyId, KeyVersion},
    secret::KeyMaterial,
};

use crate::kms::{KeyArn, KmsClient, KmsError, WrapContext};

/// Greatest length of a ciphertext blob of KMS, in bytes.
const BLOB_LIMIT: usize = 6144;
const ARN_LIMIT: usize = 2048;

/// A key as KMS wrapped it: the record that lies beside its entry in the log.
///
/// Deterministic CBOR: `{0: 1, 1: ciphertext blob, 2: KMS key ARN}`. The encryption context is not in it: it follows from
/// the place where the record is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedRecord {
    /// The ciphertext blob of KMS.
    pub blob: Vec<u8>,
    /// The KMS key.
    pub kms_key: String,
}

impl WrappedRecord {
    /// The record's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(3).uint(0).uint(1).uint(1).bytes(&self.blob).uint(2).text(&self.kms_key);
        out.into_bytes()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`CborError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        let mut map = reader.int_map(3)?;
        if map.required(0)?.uint()? != 1 {
            return Err(CborError::Range);
        }
        let blob = map.required(1)?.bytes(BLOB_LIMIT)?.to_vec();
        let kms_key = map.required(2)?.text(ARN_LIMIT)?.to_owned();
        map.end()?;
        reader.end()?;
        Ok(Self { blob, kms_key })
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

    /// Material of a version, by an attested call to KMS where it is not in memory. Concurrent callers share one call.
    ///
    /// # Errors
    /// [`KmsError`]; `None` inside `Ok` where the version is not known (any more).
    pub async fn material(
        &self,
        kms: &KmsClient,
        context: impl FnOnce() -> WrapContext,
        id: &KeyId,
        version: KeyVersion,
    ) -> Result<Option<KeyInUse>, KmsError> {
        let slot = self.slots().get(&(id.clone(), version)).map(Arc::clone);
        let Some(slot) = slot else { return Ok(None) };
        let unwrapped =
            slot.material.get_or_try_init(async || kms.decrypt(&slot.record.blob, &context()).await.map(Arc::new));
        let material = Arc::clone(unwrapped.await?);
        Ok((!slot.revoked.is_cancelled()).then(|| KeyInUse { material, revoked: slot.revoked.clone() }))
    }

    fn insert(&self, id: KeyId, version: KeyVersion, slot: Slot) {
        self.slots().insert((id, version), Arc::new(slot));
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<(KeyId, KeyVersion), Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn new(record: WrappedRecord, material: Option<KeyMaterial>) -> Self {
        Self { record, material: OnceCell::new_with(material.map(Arc::new)), revoked: CancellationToken::new() }
    }
}

/// Whether a record is by the KMS key that the configuration names; a record by another one is of no use.
pub fn is_by(record: &WrappedRecord, key: &KeyArn) -> bool {
    record.kms_key == key.as_str()
}
