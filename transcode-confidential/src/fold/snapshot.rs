//! Snapshots: a fold and the place in the log that it stands for, as bytes.
//!
//! A snapshot is a list of parts, each at most as long as a record. The first is the head, a map: log, place, frontier, and
//! the open epoch with its attestation document. The others are arrays of rows, in one order: by kind, then as the fold has
//! them. There is one encoding: what does not encode to the same bytes again is refused.

use std::sync::Arc;

use thiserror::Error;

use super::{Fold, Hold, OpenEpoch, PastEpoch, Restoration, SnapshotPlace, Unfinished, rows};
use crate::{
    attestation::PcrValue,
    audit::{Chain, EpochOpened, NAME_LIMIT, PARTS_LIMIT, segment::RECORD_LIMIT, tree::Frontier},
    cbor::{CborError, MapReader, Reader, Writer},
    fold::{RowReader, RowWriter},
    ids::{Digest, Epoch, KeyId, KeyVersion, LeafHash, LogId, RootHash, Sequence},
    keys::KeyTable,
    signature::{PublicKey, Signature},
    time::Timestamp,
};

/// Greatest length of all parts of a snapshot together, in bytes.
pub const SNAPSHOT_LIMIT: usize = 64 * 1024 * 1024;

const VERSION: u64 = 1;
const HEAD_MEMBERS: usize = 17;
const PAST_EPOCH: u64 = 1;
const POLICY: u64 = 2;
const HOLD: u64 = 3;
const SNAPSHOT_PLACE: u64 = 4;
const RESTORATION: u64 = 5;
const UNFINISHED: u64 = 6;
/// To [`KeyTable`] belong the kinds from this one up to the next, exclusive.
const KEYS: u64 = 10;
const WRAPPED: u64 = 20;

/// Everything that the events of a log before one place come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The log.
    pub log_id: LogId,
    /// The head of the chain at that place.
    pub chain: Chain,
    /// What the events before it come to.
    pub fold: Fold,
}

/// Why there is no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Not a snapshot in its one encoding.
    #[error("not a snapshot: {0}")]
    Encoding(#[from] CborError),
    /// Of a version that is not known here.
    #[error("a snapshot of version {0}")]
    Version(u64),
    /// The state is too large to be written down.
    #[error("the state has more than {SNAPSHOT_LIMIT} bytes")]
    TooLarge,
    /// No epoch was opened.
    #[error("the log has no epoch")]
    NoEpoch,
}

impl Snapshot {
    /// Writes down what a log comes to at the head of its chain.
    ///
    /// # Errors
    /// [`SnapshotError::TooLarge`], [`SnapshotError::NoEpoch`].
    pub fn encode(log_id: LogId, chain: &Chain, fold: &Fold) -> Result<Vec<Vec<u8>>, SnapshotError> {
        let epoch = fold.epoch.as_ref().ok_or(SnapshotError::NoEpoch)?;
        let mut parts = vec![head(log_id, chain, fold.kept_from, epoch)];
        let mut rows = RowWriter::default();
        put_rows(fold, &mut rows);
        parts.extend(rows.into_parts());
        let total: usize = parts.iter().map(Vec::len).sum();
        let fits = total <= SNAPSHOT_LIMIT && parts.len() <= PARTS_LIMIT;
        if fits && parts.iter().all(|part| part.len() <= RECORD_LIMIT) {
            Ok(parts)
        } else {
            Err(SnapshotError::TooLarge)
        }
    }

    /// Reads of the first part only which log and which place it is of.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn place(first: &[u8]) -> Result<(LogId, Chain), SnapshotError> {
        take_head(first).map(|snapshot| (snapshot.log_id, snapshot.chain))
    }

    /// Reads the parts of a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn decode<P: AsRef<[u8]>>(parts: &[P]) -> Result<Self, SnapshotError> {
        let (first, rest) = parts.split_first().ok_or(CborError::Truncated)?;
        let mut snapshot = take_head(first.as_ref())?;
        for part in rest {
            rows::read(part.as_ref(), |kind, row| take_row(&mut snapshot.fold, kind, row))?;
        }
        // One encoding: no row twice, none out of order, none that could stand in another part.
        let again = Self::encode(snapshot.log_id, &snapshot.chain, &snapshot.fold)?;
        let same = again.len() == parts.len() && again.iter().zip(parts).all(|(a, b)| a.as_slice() == b.as_ref());
        if same { Ok(snapshot) } else { Err(CborError::NotDeterministic.into()) }
    }
}

fn head(log_id: LogId, chain: &Chain, kept_from: Sequence, epoch: &OpenEpoch) -> Vec<u8> {
    let mut out = Writer::new();
    out.map(HEAD_MEMBERS - usize::from(epoch.enclave_id.is_none()));
    out.uint(0).uint(VERSION);
    out.uint(1).bytes(log_id.as_bytes());
    out.uint(2).uint(chain.size());
    out.uint(3).uint(chain.epoch().0);
    out.uint(4).bytes(chain.last().as_bytes());
    out.uint(5).uint(chain.time().0);
    out.uint(6).array(chain.frontier().peaks().len());
    for peak in chain.frontier().peaks() {
        out.bytes(peak);
    }
    out.uint(7).uint(kept_from.0);
    out.uint(8).uint(epoch.first.0);
    out.uint(9).bytes(epoch.previous.as_bytes());
    out.uint(10).uint(epoch.opened_at.0);
    if let Some(enclave_id) = &epoch.enclave_id {
        out.uint(11).text(enclave_id);
    }
    out.uint(12).bytes(epoch.opened.epoch_key.as_bytes());
    out.uint(13).bytes(epoch.opened.log_key.as_bytes());
    out.uint(14).bytes(epoch.opened.statement.as_bytes());
    out.uint(15).bytes(&epoch.document);
    out.uint(16).bytes(&epoch.log_key_record);
    out.into_bytes()
}

fn take_head(part: &[u8]) -> Result<Snapshot, SnapshotError> {
    let mut reader = Reader::new(part);
    let mut map = reader.int_map(HEAD_MEMBERS)?;
    match map.required(0)?.uint()? {
        VERSION => {}
        other => return Err(SnapshotError::Version(other)),
    }
    let log_id = LogId::new(map.required(1)?.array_of()?);
    let size = map.required(2)?.uint()?;
    let number = Epoch(map.required(3)?.uint()?);
    let last = LeafHash::new(map.required(4)?.array_of()?);
    let time = Timestamp(map.required(5)?.uint()?);
    let peaks = map.required(6)?;
    let peaks = (0..peaks.array(64)?).map(|_| peaks.array_of()).collect::<Result<_, _>>()?;
    let tree = Frontier::from_parts(size, peaks).ok_or(CborError::Range)?;
    let kept_from = Sequence(map.required(7)?.uint()?);
    let first = Sequence(map.required(8)?.uint()?);
    let previous = LeafHash::new(map.required(9)?.array_of()?);
    let opened_at = Timestamp(map.required(10)?.uint()?);
    let enclave_id = take_name(&mut map, 11)?;
    let epoch_key = PublicKey::new(map.required(12)?.array_of()?);
    let log_key = PublicKey::new(map.required(13)?.array_of()?);
    let statement = Signature::new(map.required(14)?.array_of()?);
    let document: Arc<[u8]> = map.required(15)?.bytes(RECORD_LIMIT)?.into();
    let log_key_record: Arc<[u8]> = map.required(16)?.bytes(RECORD_LIMIT)?.into();
    map.end()?;
    reader.end()?;
    let opened = EpochOpened {
        log_id,
        epoch_key,
        log_key,
        document: Digest::of(&document),
        log_key_record: Digest::of(&log_key_record),
        statement,
    };
    let epoch =
        Some(OpenEpoch { epoch: number, first, previous, opened_at, enclave_id, opened, document, log_key_record });
    let chain = Chain::from_parts(number, last, time, tree);
    Ok(Snapshot { log_id, chain, fold: Fold { epoch, kept_from, ..Fold::default() } })
}

fn put_rows(fold: &Fold, out: &mut RowWriter) {
    let given = |options: &[bool]| options.iter().filter(|given| **given).count();
    for past in &fold.past_epochs {
        out.row(5 + given(&[past.enclave_id.is_some(), past.pcr0.is_some()]), PAST_EPOCH, |row| {
            row.uint(1).uint(past.epoch.0).uint(2).uint(past.first.0).uint(3).uint(past.opened_at.0);
            put_name(row, 4, past.enclave_id.as_deref());
            if let Some(pcr0) = &past.pcr0 {
                row.uint(5).bytes(pcr0.as_bytes());
            }
            row.uint(6).bytes(past.document.as_bytes()).uint(7).bytes(past.epoch_key.as_bytes());
        });
    }
    if let Some(policy) = &fold.policy {
        out.row(1, POLICY, |row| {
            row.uint(1).bytes(policy);
        });
    }
    for (name, hold) in &fold.holds {
        out.row(3 + given(&[hold.principal.is_some()]), HOLD, |row| {
            row.uint(1).text(name).uint(2).uint(hold.since.0).uint(3).uint(hold.placed_at.0);
            put_name(row, 4, hold.principal.as_deref());
        });
    }
    for place in &fold.snapshots {
        out.row(2, SNAPSHOT_PLACE, |row| {
            row.uint(1).uint(place.sequence.0).uint(2).uint(place.time.0);
        });
    }
    for restored in &fold.restorations {
        out.row(7, RESTORATION, |row| {
            row.uint(1).uint(restored.sequence.0).uint(2).uint(restored.time.0).uint(3).uint(restored.epoch.0);
            row.uint(4).uint(restored.size).uint(5).bytes(restored.root.as_bytes());
            row.uint(6).bytes(restored.document.as_bytes()).uint(7).uint(restored.lost_epoch.0);
        });
    }
    for stream in fold.unfinished.values() {
        let names = [&stream.key_id, &stream.principal, &stream.content_id].map(Option::is_some);
        out.row(1 + given(&names) + given(&[stream.key_version.is_some()]), UNFINISHED, |row| {
            row.uint(1).uint(stream.began.0);
            put_name(row, 2, stream.key_id.as_deref());
            if let Some(version) = stream.key_version {
                row.uint(3).uint(version.0.into());
            }
            put_name(row, 4, stream.principal.as_deref());
            put_name(row, 5, stream.content_id.as_deref());
        });
    }
    fold.keys.put_rows(KEYS, out);
    for ((id, version), record) in &fold.wrapped {
        out.row(3, WRAPPED, |row| {
            row.uint(1).text(id.as_str()).uint(2).uint(version.0.into()).uint(3).bytes(record);
        });
    }
}

fn take_row(fold: &mut Fold, kind: u64, row: &mut RowReader<'_, '_>) -> Result<(), CborError> {
    match kind {
        PAST_EPOCH => fold.past_epochs.push_back(PastEpoch {
            epoch: Epoch(row.required(1)?.uint()?),
            first: Sequence(row.required(2)?.uint()?),
            opened_at: Timestamp(row.required(3)?.uint()?),
            enclave_id: take_name(row, 4)?,
            pcr0: row.optional(5)?.map(|reader| reader.array_of().map(PcrValue::new)).transpose()?,
            document: Digest::new(row.required(6)?.array_of()?),
            epoch_key: PublicKey::new(row.required(7)?.array_of()?),
        }),
        POLICY => fold.policy = Some(row.required(1)?.bytes(RECORD_LIMIT)?.into()),
        HOLD => {
            let name = row.required(1)?.text(NAME_LIMIT)?.to_owned();
            let since = Sequence(row.required(2)?.uint()?);
            let placed_at = Timestamp(row.required(3)?.uint()?);
            fold.holds.insert(name, Hold { since, placed_at, principal: take_name(row, 4)? });
        }
        SNAPSHOT_PLACE => fold.snapshots.push_back(SnapshotPlace {
            sequence: Sequence(row.required(1)?.uint()?),
            time: Timestamp(row.required(2)?.uint()?),
        }),
        RESTORATION => fold.restorations.push_back(Restoration {
            sequence: Sequence(row.required(1)?.uint()?),
            time: Timestamp(row.required(2)?.uint()?),
            epoch: Epoch(row.required(3)?.uint()?),
            size: row.required(4)?.uint()?,
            root: RootHash::new(row.required(5)?.array_of()?),
            document: Digest::new(row.required(6)?.array_of()?),
            lost_epoch: Epoch(row.required(7)?.uint()?),
        }),
        UNFINISHED => {
            let began = Sequence(row.required(1)?.uint()?);
            let stream = Unfinished {
                began,
                key_id: take_name(row, 2)?,
                key_version: row.optional(3)?.map(|reader| reader.number().map(KeyVersion)).transpose()?,
                principal: take_name(row, 4)?,
                content_id: take_name(row, 5)?,
            };
            fold.unfinished.insert(began, stream);
        }
        KEYS..WRAPPED => KeyTable::take_row(&mut fold.keys, kind - KEYS, row)?,
        WRAPPED => {
            let id: KeyId = row.required(1)?.text(KeyId::MAX)?.parse().map_err(|_| CborError::Range)?;
            let version = KeyVersion(row.required(2)?.number()?);
            fold.wrapped.insert((id, version), row.required(3)?.bytes(RECORD_LIMIT)?.into());
        }
        _ => return Err(CborError::Range),
    }
    Ok(())
}

fn put_name(out: &mut Writer, key: u64, name: Option<&str>) {
    if let Some(name) = name {
        out.uint(key).text(name);
    }
}

fn take_name(map: &mut MapReader<'_, '_>, key: u64) -> Result<Option<String>, CborError> {
    map.optional(key)?.map(|reader| reader.text(NAME_LIMIT).map(str::to_owned)).transpose()
}
