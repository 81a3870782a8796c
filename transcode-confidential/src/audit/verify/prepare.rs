use std::{ops::Range, sync::Arc};

use super::run::{Run, Runs};
use crate::{
    audit::{
        AuditEvent, EventBody, LeafError, Seal, decode_leaf,
        segment::{Record, RecordKind, RecordViews},
    },
    ids::Digest,
    signature::PublicKey,
};

/// Whole records of a segment with everything about them that can be found out without knowing the log: for verifying on
/// several threads.
///
/// Find whole records with [`crate::audit::segment::WholeRecords`], prepare them anywhere, and hand them in their order to
/// [`super::LogVerifier::push_prepared`] or [`super::LogVerifier::push_unseen`], which make the same checks as for bytes and
/// come to the same report.
#[derive(Debug)]
pub struct Prepared {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
    pub(super) parts: Vec<Part>,
    /// Where in `bytes` the first record lies that cannot be read.
    unread: usize,
}

/// A part of what was prepared.
#[derive(Debug)]
pub(super) enum Part {
    /// Entries that follow on one another.
    Run(Run),
    /// Each to be looked at by itself.
    Records(Vec<PreparedRecord>),
}

/// A record by itself.
#[derive(Debug)]
pub(super) struct PreparedRecord {
    pub(super) record: Record,
    /// What an entry decodes to.
    pub(super) event: Option<Result<AuditEvent, LeafError>>,
    /// SHA-256 of the file before a footer's record.
    pub(super) content: Option<Digest>,
    /// The key under which the signature of a seal was verified.
    pub(super) signed_by: Option<PublicKey>,
}

impl PreparedRecord {
    pub(super) fn new(record: Record) -> Self {
        let event = (record.kind == RecordKind::Entry).then(|| decode_leaf(&record.payload));
        Self { record, event, content: None, signed_by: None }
    }
}

impl Prepared {
    /// Decodes and hashes every entry: most of the work of verifying a log.
    pub fn events(bytes: Arc<Vec<u8>>, range: Range<usize>) -> Self {
        Self::new(bytes, range, |bytes, range| {
            let mut views = RecordViews::of(bytes.get(range).unwrap_or_default());
            let records = views.by_ref().map(|view| PreparedRecord::new(view.to_record())).collect();
            (vec![Part::Records(records)], views.rest().len())
        })
    }

    /// As [`Prepared::events`] for whoever wants a verdict and no event: entries are read where they lie, and those that
    /// follow on one another are checked against each other, too.
    pub fn unseen(bytes: Arc<Vec<u8>>, range: Range<usize>) -> Self {
        Self::new(bytes, range, Runs::of)
    }

    /// With the SHA-256 of the segment's file before the footer that is the last of these records: without it, a footer is
    /// refused.
    #[must_use]
    pub fn after_content(mut self, content: Digest) -> Self {
        if let Some(Part::Records(records)) = self.parts.last_mut()
            && let Some(last) = records.last_mut()
        {
            last.content = Some(content);
        }
        self
    }

    /// Verifies the seals among these records under the key that is probably theirs: the key of the epoch that is opened here,
    /// if one is, else `probable`. A seal under another key is left to the verifier, as all are without this. Gives the key
    /// that was tried last, which is probably that of the records behind.
    #[must_use]
    pub fn with_seals(mut self, probable: Option<PublicKey>) -> (Self, Option<PublicKey>) {
        let mut key = probable;
        let records = self.parts.iter_mut().filter_map(|part| match part {
            Part::Records(records) => Some(records),
            Part::Run(_) => None,
        });
        for prepared in records.flatten() {
            if let Some(Ok(AuditEvent { body: Some(EventBody::EpochOpened(opened)), .. })) = &prepared.event {
                key = Some(opened.epoch_key);
            }
            if prepared.record.kind == RecordKind::Seal {
                let seal = Seal::from_bytes(&prepared.record.payload);
                prepared.signed_by = key.filter(|key| seal.is_some_and(|seal| seal.verify(key).is_ok()));
            }
        }
        (self, key)
    }

    /// The bytes of all these records.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.range.clone()).unwrap_or_default()
    }

    /// The bytes from the first record on that cannot be read.
    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.unread..self.range.end).unwrap_or_default()
    }

    /// The records of a run, each by itself.
    pub(super) fn records_of(&self, run: &Run) -> impl Iterator<Item = PreparedRecord> {
        let records = RecordViews::of(self.bytes.get(run.place.clone()).unwrap_or_default());
        records.map(|view| PreparedRecord::new(view.to_record()))
    }

    fn new(
        bytes: Arc<Vec<u8>>,
        range: Range<usize>,
        prepare: impl FnOnce(&[u8], Range<usize>) -> (Vec<Part>, usize),
    ) -> Self {
        let range = range.start.min(bytes.len())..range.end.min(bytes.len());
        let (parts, unread) = prepare(&bytes, range.clone());
        Self { unread: range.end.saturating_sub(unread), bytes, range, parts }
    }
}
