//! What was done to the log itself: snapshots, pruning, legal holds, restores.

use super::{Fold, remember};
use crate::{
    audit::{AuditEvent, EventBody, HoldChange},
    ids::{Digest, Epoch, RootHash, Sequence},
    keys::FoldError,
    time::Timestamp,
};

/// Most legal holds at the same time.
pub const HOLDS_LIMIT: usize = 256;
/// Most snapshots that are remembered: older ones are of no use.
const SNAPSHOTS_LIMIT: usize = 256;
/// Most restores that are remembered.
const RESTORATIONS_LIMIT: usize = 256;

/// A legal hold that forbids pruning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Position of the event that placed it.
    pub since: Sequence,
    /// Its time.
    pub placed_at: Timestamp,
    /// Who placed it.
    pub principal: Option<String>,
}

/// Where a snapshot lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPlace {
    /// Position of its event: it stands for every event before.
    pub sequence: Sequence,
    /// Time of its event.
    pub time: Timestamp,
}

/// A copy that was taken up by order of the policy authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restoration {
    /// Position of the event that records it.
    pub sequence: Sequence,
    /// Its time.
    pub time: Timestamp,
    /// The epoch that took the copy up.
    pub epoch: Epoch,
    /// Number of events of the copy.
    pub size: u64,
    /// Its root.
    pub root: RootHash,
    /// SHA-256 of the authority's document.
    pub document: Digest,
    /// Greatest epoch that is known to be lost; 0 where none is.
    pub lost_epoch: Epoch,
}

impl Fold {
    /// The legal holds that are in force, by name.
    pub fn holds(&self) -> impl Iterator<Item = (&str, &Hold)> {
        self.holds.iter().map(|(name, hold)| (name.as_str(), hold))
    }

    /// Whether anything forbids pruning.
    pub fn is_held(&self) -> bool {
        !self.holds.is_empty()
    }

    /// The hold of a name.
    pub fn hold(&self, name: &str) -> Option<&Hold> {
        self.holds.get(name)
    }

    /// The snapshots that were taken and not pruned, oldest first, as far as they are remembered.
    pub fn snapshots(&self) -> impl DoubleEndedIterator<Item = &SnapshotPlace> {
        self.snapshots.iter()
    }

    /// The restores, oldest first, as far as they are remembered.
    pub fn restorations(&self) -> impl DoubleEndedIterator<Item = &Restoration> {
        self.restorations.iter()
    }

    /// Events before this one were given up.
    pub const fn kept_from(&self) -> Sequence {
        self.kept_from
    }

    pub(super) fn apply_maintenance(&mut self, event: &AuditEvent) -> Result<(), FoldError> {
        let contradiction = |reason| FoldError { sequence: event.sequence, reason };
        let (sequence, time) = (event.sequence, event.time);
        match &event.body {
            Some(EventBody::Snapshot { .. }) => {
                remember(&mut self.snapshots, SnapshotPlace { sequence, time }, SNAPSHOTS_LIMIT);
            }
            Some(EventBody::Pruned { below, .. }) => {
                if self.is_held() {
                    return Err(contradiction("events were given up under a legal hold"));
                }
                if *below <= self.kept_from || !self.snapshots.iter().any(|place| place.sequence == *below) {
                    return Err(contradiction("events were given up that no snapshot stands for"));
                }
                self.kept_from = *below;
                self.snapshots.retain(|place| place.sequence >= *below);
            }
            Some(EventBody::Restored { size, root, document, lost_epoch }) => {
                let (size, root, document, lost_epoch) = (*size, *root, *document, *lost_epoch);
                if size > sequence.0 {
                    return Err(contradiction("a copy was taken up that has more events"));
                }
                let epoch = event.epoch;
                let restoration = Restoration { sequence, time, epoch, size, root, document, lost_epoch };
                remember(&mut self.restorations, restoration, RESTORATIONS_LIMIT);
            }
            Some(EventBody::Hold { name, change: HoldChange::Placed }) => {
                if self.holds.contains_key(name) || self.holds.len() >= HOLDS_LIMIT {
                    return Err(contradiction("the hold was placed before, or one too many"));
                }
                let hold = Hold { since: sequence, placed_at: time, principal: event.principal.clone() };
                self.holds.insert(name.clone(), hold);
            }
            Some(EventBody::Hold { name, change: HoldChange::Lifted }) => {
                self.holds.remove(name).ok_or_else(|| contradiction("a hold was lifted that was not in force"))?;
            }
            _ => {}
        }
        Ok(())
    }
}
