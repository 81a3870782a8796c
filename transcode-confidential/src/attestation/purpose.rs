//! What a document was made for: the `user_data` of this project's documents.
//!
//! Each purpose has a form of its own, and each consumer names the one that it accepts, so a document that was made to
//! ask KMS for a key cannot be shown to a client, nor the other way round.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::refusal::Refusal;
use crate::{
    cbor::{CborError, Reader, Writer},
    ids::{Digest, Epoch, LeafHash, LogId, Sequence},
};

/// The kinds of [`UserData`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Purpose {
    /// Asking KMS for one key; `public_key` is the RSA key to which KMS encrypts.
    Kms = 1,
    /// Opening an epoch of a log; `public_key` is the epoch key.
    Epoch = 2,
    /// Answering a client on a channel; `public_key` is the key of the channel's certificate.
    Channel = 3,
    /// Stating the head of a log while it is open.
    Head = 4,
    /// A caller that is an enclave itself, answering the challenge in `nonce`.
    Caller = 5,
}

impl Purpose {
    /// The number that stands for it on the wire.
    pub const fn code(self) -> u64 {
        self as u64
    }

    /// The purpose of that number.
    pub const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Kms),
            2 => Some(Self::Epoch),
            3 => Some(Self::Channel),
            4 => Some(Self::Head),
            5 => Some(Self::Caller),
            _ => None,
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kms => "kms",
            Self::Epoch => "epoch",
            Self::Channel => "channel",
            Self::Head => "head",
            Self::Caller => "caller",
        })
    }
}

/// What this project puts into `user_data`: a deterministic CBOR map with integer keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserData {
    /// [`Purpose::Kms`].
    Kms {
        /// The log that will record the key; none before a log has an id.
        log_id: Option<LogId>,
        /// The request that this document is for: see [`UserData::request_hash`].
        request: Digest,
    },
    /// [`Purpose::Epoch`].
    Epoch {
        /// The log that the epoch continues.
        log_id: LogId,
        /// Its number.
        epoch: Epoch,
        /// Position of the first event that it will write.
        first: Sequence,
        /// Leaf hash of the event before that, zeros for the first event of a log.
        previous: LeafHash,
    },
    /// [`Purpose::Channel`].
    Channel {
        /// The log of the enclave that answers.
        log_id: LogId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// [`Purpose::Head`].
    Head {
        /// The log whose head is stated.
        log_id: LogId,
        /// The epoch that is open.
        epoch: Epoch,
        /// Number of events.
        size: u64,
        /// Leaf hash of the last event.
        last: LeafHash,
    },
    /// [`Purpose::Caller`].
    Caller {
        /// The log of the enclave that is called.
        log_id: LogId,
    },
}

const VERSION: u64 = 1;

const KEY_VERSION: u64 = 0;
const KEY_PURPOSE: u64 = 1;
const KEY_LOG: u64 = 2;
const KEY_EPOCH: u64 = 3;
const KEY_POSITION: u64 = 4;
const KEY_LEAF: u64 = 5;
const KEY_REQUEST: u64 = 6;

impl UserData {
    /// Which purpose this is.
    pub const fn purpose(&self) -> Purpose {
        match self {
            Self::Kms { .. } => Purpose::Kms,
            Self::Epoch { .. } => Purpose::Epoch,
            Self::Channel { .. } => Purpose::Channel,
            Self::Head { .. } => Purpose::Head,
            Self::Caller { .. } => Purpose::Caller,
        }
    }

    /// The log that the document speaks of. Only [`UserData::Kms`] may have none.
    pub const fn log_id(&self) -> Option<LogId> {
        match self {
            Self::Kms { log_id, .. } => *log_id,
            Self::Epoch { log_id, .. }
            | Self::Channel { log_id, .. }
            | Self::Head { log_id, .. }
            | Self::Caller { log_id } => Some(*log_id),
        }
    }

    /// What [`UserData::Kms`] names as its request: `SHA-256(operation || 0x00 || serialized encryption context)`.
    pub fn request_hash(operation: &str, serialized_context: &[u8]) -> Digest {
        let hash = Sha256::new().chain_update(operation).chain_update([0]).chain_update(serialized_context);
        Digest::new(hash.finalize().into())
    }

    /// The bytes for `user_data`; 23 to 78 of them.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(78);
        out.map(match self {
            Self::Caller { .. } => 3,
            Self::Channel { .. } => 4,
            Self::Kms { log_id, .. } => 3 + usize::from(log_id.is_some()),
            Self::Epoch { .. } | Self::Head { .. } => 6,
        });
        out.uint(KEY_VERSION).uint(VERSION).uint(KEY_PURPOSE).uint(self.purpose().code());
        if let Some(log_id) = self.log_id() {
            out.uint(KEY_LOG).bytes(log_id.as_bytes());
        }
        match self {
            Self::Kms { request, .. } => {
                out.uint(KEY_REQUEST).bytes(request.as_bytes());
            }
            Self::Epoch { epoch, first: Sequence(position), previous: leaf, .. }
            | Self::Head { epoch, size: position, last: leaf, .. } => {
                out.uint(KEY_EPOCH).uint(epoch.0);
                out.uint(KEY_POSITION).uint(*position).uint(KEY_LEAF).bytes(leaf.as_bytes());
            }
            Self::Channel { epoch, .. } => {
                out.uint(KEY_EPOCH).uint(epoch.0);
            }
            Self::Caller { .. } => {}
        }
        out.into_bytes()
    }

    /// Reads exactly what [`UserData::encode`] writes, and nothing else.
    ///
    /// # Errors
    /// [`CborError`], the first that applies.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        let mut map = reader.int_map(7)?;
        if map.required(KEY_VERSION)?.uint()? != VERSION {
            return Err(CborError::Range);
        }
        let purpose = Purpose::from_code(map.required(KEY_PURPOSE)?.uint()?).ok_or(CborError::Range)?;
        let log_id = map.optional(KEY_LOG)?.map(|reader| reader.array_of().map(LogId::new)).transpose()?;
        let its_log = log_id.ok_or(CborError::MissingKey(KEY_LOG));
        let decoded = match purpose {
            Purpose::Kms => Self::Kms { log_id, request: Digest::new(map.required(KEY_REQUEST)?.array_of()?) },
            Purpose::Epoch => Self::Epoch {
                log_id: its_log?,
                epoch: Epoch(map.required(KEY_EPOCH)?.uint()?),
                first: Sequence(map.required(KEY_POSITION)?.uint()?),
                previous: LeafHash::new(map.required(KEY_LEAF)?.array_of()?),
            },
            Purpose::Channel => Self::Channel { log_id: its_log?, epoch: Epoch(map.required(KEY_EPOCH)?.uint()?) },
            Purpose::Head => Self::Head {
                log_id: its_log?,
                epoch: Epoch(map.required(KEY_EPOCH)?.uint()?),
                size: map.required(KEY_POSITION)?.uint()?,
                last: LeafHash::new(map.required(KEY_LEAF)?.array_of()?),
            },
            Purpose::Caller => Self::Caller { log_id: its_log? },
        };
        map.end()?;
        reader.end()?;
        Ok(decoded)
    }

    /// Reads the `user_data` of a document for a consumer that accepts one purpose only.
    pub(super) fn for_purpose(user_data: Option<&[u8]>, expected: Purpose) -> Result<Self, Refusal> {
        let bytes = user_data.ok_or(Refusal::PurposeMissing)?;
        let decoded = Self::decode(bytes).map_err(Refusal::PurposeUnreadable)?;
        let found = decoded.purpose();
        if found == expected { Ok(decoded) } else { Err(Refusal::WrongPurpose { expected, found }) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_user_data() -> impl Strategy<Value = UserData> {
        (0..5, any::<[u8; 16]>(), any::<[u8; 32]>(), any::<u64>(), any::<u64>()).prop_map(|(kind, log, hash, e, n)| {
            let (log_id, epoch) = (LogId::new(log), Epoch(e));
            match kind {
                0 => UserData::Kms { log_id: (n % 2 == 0).then_some(log_id), request: Digest::new(hash) },
                1 => UserData::Epoch { log_id, epoch, first: Sequence(n), previous: LeafHash::new(hash) },
                2 => UserData::Channel { log_id, epoch },
                3 => UserData::Head { log_id, epoch, size: n, last: LeafHash::new(hash) },
                _ => UserData::Caller { log_id },
            }
        })
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let log_id = LogId::new([0xaa; 16]);
        let channel = UserData::Channel { log_id, epoch: Epoch(7) };
        assert_eq!(hex::encode(channel.encode()), format!("a4000101030250{}0307", "aa".repeat(16)));
        let epoch =
            UserData::Epoch { log_id, epoch: Epoch(2), first: Sequence(300), previous: LeafHash::new([0xbb; 32]) };
        let expected = format!("a6000101020250{}03020419012c055820{}", "aa".repeat(16), "bb".repeat(32));
        assert_eq!(hex::encode(epoch.encode()), expected);
        let request = UserData::request_hash("Decrypt", &[]);
        assert_eq!(request, Digest::of(b"Decrypt\0"));
        let kms = UserData::Kms { log_id: Some(log_id), request };
        assert_eq!(hex::encode(kms.encode()), format!("a4000101010250{}065820{request}", "aa".repeat(16)));
        let before_genesis = UserData::Kms { log_id: None, request };
        assert_eq!(hex::encode(before_genesis.encode()), format!("a300010101065820{request}"));
    }

    #[test]
    fn a_map_that_is_not_exactly_that_of_its_purpose_is_refused() {
        let log = format!("0250{}", "aa".repeat(16));
        let hash = format!("5820{}", "bb".repeat(32));
        assert!(UserData::decode(&hex::decode(format!("a400010103{log}0307")).unwrap()).is_ok());
        for (what, map, expected) in [
            ("a byte after it", format!("a400010103{log}030700"), CborError::Trailing),
            ("another version", format!("a400020103{log}0307"), CborError::Range),
            ("purpose 0", format!("a400010100{log}0307"), CborError::Range),
            ("purpose 6", format!("a400010106{log}0307"), CborError::Range),
            ("no version", format!("a30103{log}0307"), CborError::MissingKey(0)),
            ("no log", "a3000101030307".to_owned(), CborError::MissingKey(2)),
            ("no epoch", format!("a300010103{log}"), CborError::MissingKey(3)),
            ("a short log id", "a4000101030241aa0307".to_owned(), CborError::Range),
            ("a request on a channel", format!("a500010103{log}030706{hash}"), CborError::UnknownKey(6)),
            ("an epoch for KMS", format!("a500010101{log}030706{hash}"), CborError::UnknownKey(3)),
            ("an epoch of a caller", format!("a400010105{log}0307"), CborError::UnknownKey(3)),
            ("an unknown key", format!("a500010103{log}03070700"), CborError::UnknownKey(7)),
            ("a key twice", format!("a500010103{log}03070307"), CborError::KeyOrder),
            ("another order", format!("a401030001{log}0307"), CborError::MissingKey(0)),
            ("an indefinite map", format!("bf00010103{log}0307ff"), CborError::NotDeterministic),
            ("an integer in a longer form", format!("a400010103{log}031807"), CborError::NotDeterministic),
            ("an array", "80".to_owned(), CborError::Type),
            ("nothing", String::new(), CborError::Truncated),
        ] {
            assert_eq!(UserData::decode(&hex::decode(map).unwrap()), Err(expected), "{what}");
        }
    }

    #[test]
    fn each_consumer_refuses_the_documents_of_all_others() {
        let caller = UserData::Caller { log_id: LogId::new([1; 16]) }.encode();
        assert!(UserData::for_purpose(Some(&caller), Purpose::Caller).is_ok());
        for expected in [Purpose::Kms, Purpose::Epoch, Purpose::Channel, Purpose::Head] {
            let refusal = UserData::for_purpose(Some(&caller), expected);
            assert_eq!(refusal, Err(Refusal::WrongPurpose { expected, found: Purpose::Caller }));
        }
        assert_eq!(UserData::for_purpose(None, Purpose::Caller), Err(Refusal::PurposeMissing));
        let foreign = UserData::for_purpose(Some(b"hello"), Purpose::Caller).unwrap_err();
        assert_eq!(foreign.reason(), "purpose-unreadable");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_and_within_the_limits_of_a_request(data in any_user_data()) {
            let bytes = data.encode();
            prop_assert!((23..=78).contains(&bytes.len()));
            prop_assert_eq!(UserData::decode(&bytes), Ok(data));
        }

        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(data in any_user_data(), at: prop::sample::Index, flip in 1u8..) {
            let mut bytes = data.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(decoded) = UserData::decode(&bytes) {
                prop_assert_eq!(decoded.encode(), bytes);
                prop_assert_ne!(decoded, data);
            }
        }
    }
}
