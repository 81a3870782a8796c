//! Runs: ordinary entries that follow on one another, checked against each other where nothing else of the log is known.

use std::ops::Range;

use super::prepare::{Part, PreparedRecord};
use crate::{
    audit::{
        EventBody,
        leaf::{LeafView, Place},
        leaf_hash,
        segment::{RecordKind, RecordView, RecordViews},
    },
    ids::{LeafHash, Sequence},
    time::Timestamp,
};

/// At least one entry, of one epoch, each following on the one before it. None of them has records beside it or says
/// anything that concerns the verification of others, so nothing is left to check but how the first follows on the log.
#[derive(Debug)]
pub(super) struct Run {
    /// Where the first stands.
    pub(super) first: Place,
    /// Time of the last.
    pub(super) ends: Timestamp,
    /// The hash of each.
    pub(super) hashes: Vec<LeafHash>,
    /// Where their records lie among the bytes.
    pub(super) place: Range<usize>,
}

impl Run {
    /// Takes in the entry behind the last, where it follows on it.
    fn take(&mut self, next: &Place, hash: LeafHash, length: usize) -> bool {
        let due = self.first.sequence.0.checked_add(self.hashes.len() as u64).map(Sequence);
        let follows = due == Some(next.sequence)
            && self.first.epoch == next.epoch
            && self.ends <= next.time
            && self.hashes.last() == Some(&next.previous);
        if follows {
            self.hashes.push(hash);
            self.ends = next.time;
            self.place.end += length;
        }
        follows
    }
}

/// Cuts records into runs and what is none.
pub(super) struct Runs {
    parts: Vec<Part>,
    run: Option<Run>,
    /// Where the next record lies.
    at: usize,
}

impl Runs {
    /// The parts of these bytes, and how many of them, at the end, cannot be read.
    pub(super) fn of(bytes: &[u8], range: Range<usize>) -> (Vec<Part>, usize) {
        let mut runs = Self { parts: Vec::new(), run: None, at: range.start };
        let mut views = RecordViews::of(bytes.get(range).unwrap_or_default());
        for view in views.by_ref() {
            if !runs.take(view) {
                runs.put(PreparedRecord::new(view.to_record()));
            }
            runs.at += view.disk_len();
        }
        runs.end_run();
        (runs.parts, views.rest().len())
    }

    /// Takes in an ordinary entry; `false` for anything else.
    fn take(&mut self, record: RecordView<'_>) -> bool {
        if record.kind != RecordKind::Entry {
            return false;
        }
        let Ok(LeafView { place, said }) = LeafView::read(record.payload) else { return false };
        if !is_ordinary(said.body.as_ref()) {
            return false;
        }
        let (hash, length) = (leaf_hash(record.payload), record.disk_len());
        if !self.run.as_mut().is_some_and(|run| run.take(&place, hash, length)) {
            self.end_run();
            let lies = self.at..self.at + length;
            self.run = Some(Run { first: place, ends: place.time, hashes: vec![hash], place: lies });
        }
        true
    }

    fn put(&mut self, record: PreparedRecord) {
        self.end_run();
        match self.parts.last_mut() {
            Some(Part::Records(records)) => records.push(record),
            _ => self.parts.push(Part::Records(vec![record])),
        }
    }

    fn end_run(&mut self) {
        self.parts.extend(self.run.take().map(Part::Run));
    }
}

/// Whether an event with this body is checked by its place alone. Of the bodies that nearly every event has; any other goes
/// the long way, whatever it says.
const fn is_ordinary(body: Option<&EventBody>) -> bool {
    use EventBody::{KeyUsed, Processed, Refused, Reported};
    matches!(body, None | Some(KeyUsed { .. } | Processed { .. } | Refused { .. } | Reported(_)))
}
