//! Records that were prepared elsewhere, in place of the bytes of a segment.

use super::{BATCH_BYTES, BATCH_LIMIT, Checked, LogVerifier, SealedEvent, damaged, start::Start};
use crate::{
    audit::{
        AuditEvent, LeafError,
        verify::{
            Prepared,
            prepare::{Part, PreparedRecord},
            run::Run,
        },
    },
    ids::Digest,
    signature::PublicKey,
};

/// What was found out about a record before it was handed in.
#[derive(Default)]
pub(super) struct Ahead {
    pub(super) event: Option<Result<AuditEvent, LeafError>>,
    pub(super) content: Option<Digest>,
    pub(super) signed_by: Option<PublicKey>,
}

impl LogVerifier {
    /// Takes the records that come next in the current segment, prepared elsewhere, in place of their bytes; gives each event
    /// to `sink` once its seal has verified. The segment's header goes before them as bytes, and so does whatever of the
    /// file's end holds no whole record, after them.
    pub fn push_prepared(&mut self, prepared: Prepared, sink: &mut dyn FnMut(SealedEvent)) {
        self.push_parts(prepared, Some(sink));
    }

    /// As [`LogVerifier::push_prepared`] where nobody wants the events: runs of ordinary ones are taken in as a whole.
    pub fn push_unseen(&mut self, prepared: Prepared) {
        self.push_parts(prepared, None);
    }

    /// The key of the newest epoch that is known: probably that of the seals that come next.
    pub fn epoch_key(&self) -> Option<PublicKey> {
        let opening = self.opening.as_ref().map(|(_, opening)| opening.epoch_key);
        opening.or_else(|| self.epoch_keys.last_key_value().map(|(_, key)| *key))
    }

    fn push_parts(&mut self, prepared: Prepared, sink: Option<&mut dyn FnMut(SealedEvent)>) {
        if self.failure.is_none()
            && let Err(failure) = self.take_parts(prepared, sink)
        {
            self.fail(failure);
        }
    }

    fn take_parts(&mut self, mut prepared: Prepared, sink: Option<&mut dyn FnMut(SealedEvent)>) -> Checked {
        let (unseen, ignore) = (sink.is_none(), &mut |_| {});
        let sink = sink.unwrap_or(ignore);
        let Some(segment) = self.current.as_ref().filter(|segment| !segment.passed_over) else { return Ok(()) };
        // Behind bytes that are no record, what looks like one is a part of the tail.
        if segment.torn.is_some() {
            return self.take(prepared.bytes(), sink);
        }
        if prepared.bytes().is_empty() {
            return Ok(());
        }
        if segment.header.is_none() || !segment.records.rest().is_empty() {
            return Err(damaged("a record without what lies before it"));
        }
        for part in std::mem::take(&mut prepared.parts) {
            match part {
                Part::Run(run) if unseen && self.take_run(&run) => {}
                Part::Run(run) => prepared.records_of(&run).try_for_each(|record| self.take_record(record, sink))?,
                Part::Records(records) => records.into_iter().try_for_each(|record| self.take_record(record, sink))?,
            }
        }
        match prepared.unread() {
            [] => Ok(()),
            unread => self.take(unread, sink),
        }
    }

    /// Takes in a run where all that its records would be checked for is known to hold; else `false`, and nothing has changed:
    /// taken one by one, they show what does not hold.
    fn take_run(&mut self, run: &Run) -> bool {
        let Some(segment) = &mut self.current else { return false };
        let (events, bytes) = (run.hashes.len(), run.place.len());
        let first = run.first.sequence.0;
        let plain = !matches!(self.start, Start::Due(_)) && self.attachments.is_empty() && !segment.footer;
        let in_segment = segment.header.is_some_and(|header| header.epoch == run.first.epoch);
        let opens = run.first.epoch != self.chain.epoch();
        let bounded =
            self.pending.len() + self.unseen + events <= BATCH_LIMIT && self.pending_bytes + bytes <= BATCH_BYTES;
        let nothing_known = !self.evidence.concerns(first, events as u64);
        if !(plain && in_segment && !opens && bounded && nothing_known) || segment.passed_over {
            return false;
        }
        if self.chain.follow_run(&run.first, run.ends, &run.hashes).is_err() {
            return false;
        }
        segment.records.pass(bytes);
        segment.content = None;
        segment.unsettled_records += events as u64;
        self.unseen += events;
        self.pending_bytes += bytes;
        true
    }

    fn take_record(&mut self, prepared: PreparedRecord, sink: &mut dyn FnMut(SealedEvent)) -> Checked {
        let PreparedRecord { record, event, content, signed_by } = prepared;
        let Some(segment) = self.current.as_mut().filter(|segment| !segment.passed_over) else { return Ok(()) };
        segment.checking = Some(segment.records.offset());
        segment.records.pass(record.disk_len());
        segment.content = None;
        self.ahead = Ahead { event, content, signed_by };
        let checked = self.record(record, sink);
        // What was found out about one record is never said of another.
        self.ahead = Ahead::default();
        checked?;
        if let Some(segment) = &mut self.current {
            segment.checking = None;
        }
        Ok(())
    }
}
