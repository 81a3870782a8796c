//! What each kind of event says to programs, beyond the fields that all events share.

use super::{reported::Reported, segment::RecordKind};
use crate::{
    attestation::Purpose,
    cbor::{CborError, MapReader, Reader, Writer},
    ids::{Digest, Epoch, LogId, Period, RootHash, Sequence},
    signature::{PublicKey, Signature},
};

/// Longest text in a body, in bytes.
pub(super) const TEXT_LIMIT: usize = 1024;
/// Most keys that any body has.
const KEY_LIMIT: usize = 16;

/// The body of an event: a map whose key 0 names the kind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventBody {
    /// Kind 1, with `EnclaveCreated`: an epoch opens.
    EpochOpened(Box<EpochOpened>),
    /// Kind 2, with `AttestationVerified` and `AttestationFailed`.
    Attestation {
        /// What the document was for.
        purpose: Purpose,
        /// SHA-256 of the document, where there was one.
        document: Option<Digest>,
        /// The listed reason of a refusal.
        reason: Option<String>,
    },
    /// Kind 3, with `KeyGenerated` and `KeyRotated`.
    KeyCreated {
        /// SHA-256 of the wrapped key record that lies beside this entry. `None` where the key was never wrapped.
        record: Option<Digest>,
        /// Rotation policy of the key: greatest age of a version, in seconds.
        max_age_secs: u64,
        /// Rotation policy of the key: most uses of a version.
        max_uses: u64,
        /// Rotation policy of the key: re-attest before a rotation takes effect.
        require_attestation: bool,
        /// Why this version was made.
        reason: CreationReason,
    },
    /// Kind 4, with `KeyRevoked`.
    KeyChanged {
        /// What was done to the key.
        change: KeyChange,
    },
    /// Kind 5, with `KeyUsed`.
    KeyUsed {
        /// What the key is used for.
        operation: KeyOperation,
        /// How many uses this counts against the version's limit; 0 for a decryption.
        uses: u64,
        /// SHA-256 of the serialized encryption context.
        context: Option<Digest>,
        /// Of a media key: the period of the content that it is for.
        period: Option<Period>,
    },
    /// Kind 6, with `ContentProcessed`.
    Processed {
        /// Sequence of the `KeyUsed` event that began the stream.
        began: Option<Sequence>,
        /// How the stream ended.
        outcome: Outcome,
        /// Bytes read.
        bytes_in: u64,
        /// Bytes released.
        bytes_out: u64,
        /// SHA-256 of the bytes released.
        digest: Option<Digest>,
    },
    /// Kind 7, with `PolicyViolation` and `UnauthorizedAccess`.
    Refused {
        /// The wire code of the refusal.
        code: String,
        /// How many refusals of this kind this one event stands for.
        count: u64,
    },
    /// Kind 8, with `PolicyChanged`.
    PolicyAdopted {
        /// Version of the adopted policy.
        version: u64,
        /// SHA-256 of the signed document that lies beside this entry.
        document: Digest,
    },
    /// Kind 14, with `ContentProcessed`: work that a transcoder reported.
    Reported(Reported),
    /// Kind 9, with `LogMaintained`.
    Maintained {
        /// What was done to the log.
        action: Maintenance,
        /// How many records it concerned.
        records: u64,
        /// How many bytes it concerned.
        bytes: u64,
    },
    /// Kind 10, with `LogMaintained`: the whole state before this event was written down ([`crate::fold::Snapshot`]).
    Snapshot {
        /// SHA-256 of each of the snapshot's parts, which lie beside this entry.
        parts: Vec<Digest>,
    },
    /// Kind 11, with `LogMaintained`: events are given up. Whoever has the log from there on may drop the segments before.
    Pruned {
        /// Position of the snapshot that stands for every event before it.
        below: Sequence,
        /// How many wrapped key versions were unwrapped first, to show that nothing is lost.
        proven: u64,
    },
    /// Kind 12, with `LogMaintained`: the policy authority had an older copy of the log taken up again.
    Restored {
        /// Number of events of the copy.
        size: u64,
        /// Its root.
        root: RootHash,
        /// SHA-256 of the authority's document, which lies beside this entry.
        document: Digest,
        /// Greatest epoch that is known to be lost with what came after the copy; 0 where none is.
        lost_epoch: Epoch,
    },
    /// Kind 13, with `LogMaintained`: a legal hold forbids pruning, or no longer does.
    Hold {
        /// Its name.
        name: String,
        /// Placed or lifted.
        change: HoldChange,
    },
}

/// Most parts of a snapshot.
pub(crate) const PARTS_LIMIT: usize = 1024;
/// Longest name of a legal hold, in bytes.
pub const HOLD_NAME_LIMIT: usize = 128;

/// What an epoch binds together. The log key signs over all of it ([`crate::audit::EpochStatement`]).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EpochOpened {
    /// The log.
    pub log_id: LogId,
    /// Ed25519 key that signs the seals of this epoch; it never leaves the enclave's memory.
    pub epoch_key: PublicKey,
    /// Ed25519 key that is the same for the whole life of the log.
    pub log_key: PublicKey,
    /// SHA-256 of the attestation document over the epoch key, which lies beside this entry.
    pub document: Digest,
    /// SHA-256 of the wrapped log key record that lies beside this entry.
    pub log_key_record: Digest,
    /// The log key's signature over the epoch statement.
    pub statement: Signature,
}

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant = $code,)+ }

        impl $name {
            const fn code(self) -> u64 {
                self as u64
            }

            const fn from_code(code: u64) -> Result<Self, CborError> {
                match code {
                    $($code => Ok(Self::$variant),)+
                    _ => Err(CborError::Range),
                }
            }
        }
    };
}

coded!(
    /// Why a key version was made.
    CreationReason {
        /// The first version of the key.
        Initial = 0,
        /// The version before reached its age.
        Age = 1,
        /// The version before reached its number of uses.
        Uses = 2,
        /// Somebody asked for it.
        Manual = 3,
    }
);
coded!(
    /// What was done to a key.
    KeyChange {
        /// No use any more; erased from memory; its id is never used again.
        Revoked = 0,
        /// Its wrapped records are deleted as well; where the event names a version, that version alone.
        Destroyed = 1,
        /// No use until it is resumed.
        Suspended = 2,
        /// Usable again.
        Resumed = 3,
        /// Versions below that of the event no longer decrypt.
        DecryptFrom = 4,
    }
);
coded!(
    /// What a key is used for.
    KeyOperation {
        /// A message is encrypted inside the enclave.
        Encrypt = 0,
        /// A message is decrypted inside the enclave.
        Decrypt = 1,
        /// A data key is made, and released with its wrapped form.
        IssueDataKey = 2,
        /// A data key is unwrapped and released.
        UnwrapDataKey = 3,
        /// A media key is derived and released.
        DeriveMediaKey = 4,
        /// A message is encrypted anew under the active version; nothing of its content is released.
        Rewrap = 5,
    }
);
coded!(
    /// How a stream of content ended.
    Outcome {
        /// All of it was released.
        Complete = 0,
        /// It was given up part of the way.
        Aborted = 1,
        /// The enclave stopped before it could tell.
        Unknown = 2,
        /// A transcoder reported it.
        Reported = 3,
    }
);
coded!(
    /// What was done to the log, where nothing more needs to be said than how much.
    Maintenance {
        /// Unsealed records at the end were set aside, not replayed.
        Quarantined = 0,
    }
);
coded!(
    /// What was done to a legal hold.
    HoldChange {
        /// From here on nothing is pruned.
        Placed = 0,
        /// This hold forbids nothing any more.
        Lifted = 1,
    }
);

impl KeyOperation {
    /// Whether this operation wraps something under the version, and so counts against its limit.
    pub const fn is_counted(self) -> bool {
        !matches!(self, Self::Decrypt | Self::UnwrapDataKey)
    }
}

impl EventBody {
    /// The records that must lie beside the entry, in their order: of which kind, and with which digest.
    pub fn attachments(&self) -> Vec<(RecordKind, Digest)> {
        match self {
            Self::EpochOpened(opened) => {
                vec![(RecordKind::Attestation, opened.document), (RecordKind::WrappedKey, opened.log_key_record)]
            }
            Self::KeyCreated { record, .. } => record.iter().map(|record| (RecordKind::WrappedKey, *record)).collect(),
            Self::Attestation { purpose: Purpose::Head, document: Some(document), .. } => {
                vec![(RecordKind::Attestation, *document)]
            }
            Self::PolicyAdopted { document, .. } => vec![(RecordKind::Policy, *document)],
            Self::Snapshot { parts } => parts.iter().map(|part| (RecordKind::Snapshot, *part)).collect(),
            Self::Restored { document, .. } => vec![(RecordKind::Restoration, *document)],
            _ => Vec::new(),
        }
    }

    /// Length of the longest text, in bytes; a reader accepts [`TEXT_LIMIT`].
    pub(super) const fn longest_text(&self) -> usize {
        match self {
            Self::Attestation { reason: Some(text), .. } | Self::Refused { code: text, .. } => text.len(),
            Self::Hold { name, .. } => name.len(),
            Self::Reported(reported) => reported.longest_text(),
            _ => 0,
        }
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        let present = |options: &[bool]| options.iter().filter(|given| **given).count();
        match self {
            Self::EpochOpened(opened) => {
                out.map(7).uint(0).uint(1);
                out.uint(1).bytes(opened.log_id.as_bytes());
                out.uint(2).bytes(opened.epoch_key.as_bytes());
                out.uint(3).bytes(opened.log_key.as_bytes());
                out.uint(4).bytes(opened.document.as_bytes());
                out.uint(5).bytes(opened.log_key_record.as_bytes());
                out.uint(6).bytes(opened.statement.as_bytes());
            }
            Self::Attestation { purpose, document, reason } => {
                out.map(2 + present(&[document.is_some(), reason.is_some()])).uint(0).uint(2);
                out.uint(1).uint(purpose.code());
                put_digest(out, 2, *document);
                if let Some(reason) = reason {
                    out.uint(3).text(reason);
                }
            }
            Self::KeyCreated { record, max_age_secs, max_uses, require_attestation, reason } => {
                out.map(5 + present(&[record.is_some()])).uint(0).uint(3);
                put_digest(out, 1, *record);
                out.uint(2).uint(*max_age_secs);
                out.uint(3).uint(*max_uses);
                out.uint(4).bool(*require_attestation);
                out.uint(5).uint(reason.code());
            }
            Self::KeyChanged { change } => {
                out.map(2).uint(0).uint(4);
                out.uint(1).uint(change.code());
            }
            Self::KeyUsed { operation, uses, context, period } => {
                out.map(3 + present(&[context.is_some(), period.is_some()])).uint(0).uint(5);
                out.uint(1).uint(operation.code());
                out.uint(2).uint(*uses);
                put_digest(out, 3, *context);
                if let Some(period) = period {
                    out.uint(4).uint(period.0);
                }
            }
            Self::Processed { began, outcome, bytes_in, bytes_out, digest } => {
                out.map(4 + present(&[began.is_some(), digest.is_some()])).uint(0).uint(6);
                if let Some(began) = began {
                    out.uint(1).uint(began.0);
                }
                out.uint(2).uint(outcome.code());
                out.uint(3).uint(*bytes_in);
                out.uint(4).uint(*bytes_out);
                put_digest(out, 5, *digest);
            }
            Self::Reported(reported) => reported.encode(out),
            Self::Refused { code, count } => {
                out.map(3).uint(0).uint(7);
                out.uint(1).text(code);
                out.uint(2).uint(*count);
            }
            Self::PolicyAdopted { version, document } => {
                out.map(3).uint(0).uint(8);
                out.uint(1).uint(*version);
                out.uint(2).bytes(document.as_bytes());
            }
            Self::Maintained { action, records, bytes } => {
                out.map(4).uint(0).uint(9);
                out.uint(1).uint(action.code());
                out.uint(2).uint(*records);
                out.uint(3).uint(*bytes);
            }
            Self::Snapshot { parts } => {
                out.map(2).uint(0).uint(10);
                out.uint(1).array(parts.len());
                for part in parts {
                    out.bytes(part.as_bytes());
                }
            }
            Self::Pruned { below, proven } => {
                out.map(3).uint(0).uint(11);
                out.uint(1).uint(below.0);
                out.uint(2).uint(*proven);
            }
            Self::Restored { size, root, document, lost_epoch } => {
                out.map(5).uint(0).uint(12);
                out.uint(1).uint(*size);
                out.uint(2).bytes(root.as_bytes());
                out.uint(3).bytes(document.as_bytes());
                out.uint(4).uint(lost_epoch.0);
            }
            Self::Hold { name, change } => {
                out.map(3).uint(0).uint(13);
                out.uint(1).text(name);
                out.uint(2).uint(change.code());
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        let mut map = reader.int_map(KEY_LIMIT)?;
        let kind = map.required(0)?.uint()?;
        let body = match kind {
            1 => Self::EpochOpened(Box::new(EpochOpened {
                log_id: LogId::new(map.required(1)?.array_of()?),
                epoch_key: PublicKey::new(map.required(2)?.array_of()?),
                log_key: PublicKey::new(map.required(3)?.array_of()?),
                document: take_digest(&mut map, 4)?,
                log_key_record: take_digest(&mut map, 5)?,
                statement: Signature::new(map.required(6)?.array_of()?),
            })),
            2 => Self::Attestation {
                purpose: Purpose::from_code(map.required(1)?.uint()?).ok_or(CborError::Range)?,
                document: optional_digest(&mut map, 2)?,
                reason: match map.optional(3)? {
                    Some(reader) => Some(reader.text(TEXT_LIMIT)?.to_owned()),
                    None => None,
                },
            },
            3 => Self::KeyCreated {
                record: optional_digest(&mut map, 1)?,
                max_age_secs: map.required(2)?.uint()?,
                max_uses: map.required(3)?.uint()?,
                require_attestation: map.required(4)?.bool()?,
                reason: CreationReason::from_code(map.required(5)?.uint()?)?,
            },
            4 => Self::KeyChanged { change: KeyChange::from_code(map.required(1)?.uint()?)? },
            5 => Self::KeyUsed {
                operation: KeyOperation::from_code(map.required(1)?.uint()?)?,
                uses: map.required(2)?.uint()?,
                context: optional_digest(&mut map, 3)?,
                period: match map.optional(4)? {
                    Some(reader) => Some(Period(reader.uint()?)),
                    None => None,
                },
            },
            6 => Self::Processed {
                began: match map.optional(1)? {
                    Some(reader) => Some(Sequence(reader.uint()?)),
                    None => None,
                },
                outcome: Outcome::from_code(map.required(2)?.uint()?)?,
                bytes_in: map.required(3)?.uint()?,
                bytes_out: map.required(4)?.uint()?,
                digest: optional_digest(&mut map, 5)?,
            },
            7 => Self::Refused { code: map.required(1)?.text(TEXT_LIMIT)?.to_owned(), count: map.required(2)?.uint()? },
            8 => Self::PolicyAdopted { version: map.required(1)?.uint()?, document: take_digest(&mut map, 2)? },
            9 => Self::Maintained {
                action: Maintenance::from_code(map.required(1)?.uint()?)?,
                records: map.required(2)?.uint()?,
                bytes: map.required(3)?.uint()?,
            },
            10 => {
                let reader = map.required(1)?;
                let parts = (0..reader.array(PARTS_LIMIT)?).map(|_| reader.array_of().map(Digest::new));
                Self::Snapshot { parts: parts.collect::<Result<_, _>>()? }
            }
            11 => Self::Pruned { below: Sequence(map.required(1)?.uint()?), proven: map.required(2)?.uint()? },
            12 => Self::Restored {
                size: map.required(1)?.uint()?,
                root: RootHash::new(map.required(2)?.array_of()?),
                document: take_digest(&mut map, 3)?,
                lost_epoch: Epoch(map.required(4)?.uint()?),
            },
            13 => Self::Hold {
                name: map.required(1)?.text(HOLD_NAME_LIMIT)?.to_owned(),
                change: HoldChange::from_code(map.required(2)?.uint()?)?,
            },
            Reported::KIND => Self::Reported(Reported::decode(&mut map)?),
            _ => return Err(CborError::Range),
        };
        map.end()?;
        Ok(body)
    }
}

fn put_digest(out: &mut Writer, key: u64, digest: Option<Digest>) {
    if let Some(digest) = digest {
        out.uint(key).bytes(digest.as_bytes());
    }
}

fn take_digest(map: &mut MapReader<'_, '_>, key: u64) -> Result<Digest, CborError> {
    map.required(key)?.array_of().map(Digest::new)
}

fn optional_digest(map: &mut MapReader<'_, '_>, key: u64) -> Result<Option<Digest>, CborError> {
    map.optional(key)?.map(|reader| reader.array_of().map(Digest::new)).transpose()
}
