//! The key state as rows of a snapshot. Whoever adds a field to the state adds it here; the property test of the snapshots
//! finds out who did not.

use super::{
    Answered, KeyRecord, KeyRotationPolicy, KeyState, KeyTable, MediaPeriods, PeriodRun, VersionRecord, VersionState,
};
use crate::{
    audit::{AuditEventType, RequestTag},
    cbor::CborError,
    fold::{RowReader, RowWriter},
    ids::{Digest, KeyId, KeyVersion, LeafHash, Period, Sequence},
    time::Timestamp,
};

const KEY: u64 = 0;
/// Of the key in the last row of kind [`KEY`].
const VERSION: u64 = 1;
const ANSWERED: u64 = 2;
/// Of the key in the last row of kind [`KEY`].
const MEDIA: u64 = 3;
const REPORTED: u64 = 4;

const KEY_STATES: [KeyState; 4] = [KeyState::Active, KeyState::Suspended, KeyState::Revoked, KeyState::Destroyed];
const VERSION_STATES: [VersionState; 4] =
    [VersionState::Active, VersionState::Deactivated, VersionState::Revoked, VersionState::Destroyed];

impl KeyTable {
    /// Writes every key and its versions, by name; kinds count from `base`.
    pub(crate) fn put_rows(&self, base: u64, out: &mut RowWriter) {
        for (id, key) in self.iter() {
            out.row(6, base + KEY, |row| {
                row.uint(1).text(id.as_str()).uint(2).uint(key.policy.max_age_secs).uint(3).uint(key.policy.max_uses);
                row.uint(4).bool(key.policy.require_attestation).uint(5).uint(code(&KEY_STATES, key.state));
                row.uint(6).uint(key.decrypt_from.0.into());
            });
            for version in &key.versions {
                out.row(4 + usize::from(version.record.is_some()), base + VERSION, |row| {
                    row.uint(1).uint(version.version.0.into()).uint(2).uint(code(&VERSION_STATES, version.state));
                    row.uint(3).uint(version.created_at.0).uint(4).uint(version.uses);
                    if let Some(record) = &version.record {
                        row.uint(5).bytes(record.as_bytes());
                    }
                });
            }
            for (content, run) in key.media.iter() {
                out.row(4, base + MEDIA, |row| {
                    row.uint(1).bytes(content.as_bytes()).uint(2).uint(run.first.0).uint(3).uint(run.last.0);
                    row.uint(4).uint(run.version.0.into());
                });
            }
        }
        let answered = self.answered().iter().map(|answered| (ANSWERED, answered));
        let reported = self.reported().iter().map(|reported| (REPORTED, reported));
        for (kind, answered) in answered.chain(reported) {
            let named = usize::from(answered.key.is_some()) + usize::from(answered.version.is_some());
            out.row(5 + named, base + kind, |row| {
                row.uint(1).bytes(&answered.tag.to_bytes()).uint(2).uint(answered.sequence.0);
                row.uint(3).bytes(answered.leaf.as_bytes()).uint(4).uint(answered.time.0);
                row.uint(5).uint(answered.event_type as u64);
                if let Some(key) = &answered.key {
                    row.uint(6).text(key.as_str());
                }
                if let Some(version) = answered.version {
                    row.uint(7).uint(version.0.into());
                }
            });
        }
    }

    /// Takes in a row; `kind` counts from the same base.
    pub(crate) fn take_row(&mut self, kind: u64, row: &mut RowReader<'_, '_>) -> Result<(), CborError> {
        match kind {
            KEY => {
                let id: KeyId = row.required(1)?.text(KeyId::MAX)?.parse().map_err(|_| CborError::Range)?;
                let policy = KeyRotationPolicy {
                    max_age_secs: row.required(2)?.uint()?,
                    max_uses: row.required(3)?.uint()?,
                    require_attestation: row.required(4)?.bool()?,
                };
                let state = state(&KEY_STATES, row.required(5)?.uint()?)?;
                let decrypt_from = KeyVersion(row.required(6)?.number()?);
                self.put_back(
                    id,
                    KeyRecord { policy, state, decrypt_from, versions: Vec::new(), media: MediaPeriods::default() },
                );
            }
            VERSION => {
                let version = VersionRecord {
                    version: KeyVersion(row.required(1)?.number()?),
                    state: state(&VERSION_STATES, row.required(2)?.uint()?)?,
                    created_at: Timestamp(row.required(3)?.uint()?),
                    uses: row.required(4)?.uint()?,
                    record: row.optional(5)?.map(|reader| reader.array_of().map(Digest::new)).transpose()?,
                };
                self.last_put_back().ok_or(CborError::Range)?.versions.push(version);
            }
            MEDIA => {
                let content = Digest::new(row.required(1)?.array_of()?);
                let run = PeriodRun {
                    first: Period(row.required(2)?.uint()?),
                    last: Period(row.required(3)?.uint()?),
                    version: KeyVersion(row.required(4)?.number()?),
                };
                if !self.last_put_back().is_some_and(|key| key.media.push(content, run)) {
                    return Err(CborError::KeyOrder);
                }
            }
            ANSWERED | REPORTED => {
                let answered = Answered {
                    tag: RequestTag::from_bytes(row.required(1)?.array_of()?).ok_or(CborError::Range)?,
                    sequence: Sequence(row.required(2)?.uint()?),
                    leaf: LeafHash::new(row.required(3)?.array_of()?),
                    time: Timestamp(row.required(4)?.uint()?),
                    event_type: event_type(row.required(5)?.uint()?)?,
                    key: match row.optional(6)? {
                        Some(reader) => Some(reader.text(KeyId::MAX)?.parse().map_err(|_| CborError::Range)?),
                        None => None,
                    },
                    version: row.optional(7)?.map(|reader| reader.number().map(KeyVersion)).transpose()?,
                };
                match kind {
                    ANSWERED => self.put_back_answered(answered),
                    _ => self.put_back_reported(answered),
                }
            }
            _ => return Err(CborError::Range),
        }
        Ok(())
    }
}

fn code<S: PartialEq>(states: &[S], state: S) -> u64 {
    states.iter().position(|known| *known == state).map_or(u64::MAX, |at| at as u64)
}

fn state<S: Copy>(states: &[S], code: u64) -> Result<S, CborError> {
    usize::try_from(code).ok().and_then(|code| states.get(code)).copied().ok_or(CborError::Range)
}

fn event_type(code: u64) -> Result<AuditEventType, CborError> {
    AuditEventType::ALL.into_iter().find(|known| *known as u64 == code).ok_or(CborError::Range)
}
