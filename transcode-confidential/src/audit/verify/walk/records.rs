//! The records of a segment, one after the other: what each must be where it stands.

use sha2::Digest as _;

use super::{BATCH_BYTES, BATCH_LIMIT, Checked, LogVerifier, SealedEvent, tampered};
use crate::{
    audit::{
        EventBody, Seal,
        checkpoint::{Checkpoint, SignedNote, VerifierKey, epoch_key_name, log_verifier_key},
        decode_leaf,
        segment::{Footer, Record, RecordKind},
        verify::evidence::Keys,
    },
    ids::{Digest, Sequence},
};

impl LogVerifier {
    pub(super) fn record(&mut self, record: Record, sink: &mut dyn FnMut(SealedEvent)) -> Checked {
        if self.is_passed_over(&record) {
            return Ok(());
        }
        if self.current.as_ref().is_some_and(|segment| segment.footer) {
            return Err(tampered("a record behind the footer"));
        }
        match record.kind {
            RecordKind::Entry => self.entry(&record)?,
            RecordKind::Seal => self.seal(&record, sink)?,
            RecordKind::Checkpoint => self.checkpoint(&record)?,
            RecordKind::Footer => self.footer(&record)?,
            kind if kind.is_attachment() => self.attachments.push(record.clone()),
            _ => return Err(tampered("a record that does not belong here")),
        }
        self.pending_bytes += record.disk_len();
        if self.pending.len() + self.unseen > BATCH_LIMIT || self.pending_bytes > BATCH_BYTES {
            return Err(tampered("more records than a batch may have, without a seal"));
        }
        if let Some(segment) = &mut self.current {
            segment.account(&record);
        }
        if self.is_settled() && self.attachments.is_empty() {
            self.pending_bytes = 0;
        }
        Ok(())
    }

    fn entry(&mut self, record: &Record) -> Checked {
        let decoded = self.ahead.event.take().unwrap_or_else(|| decode_leaf(&record.payload));
        let event = decoded.map_err(|error| tampered(error.to_string()))?;
        let attachments = std::mem::take(&mut self.attachments);
        let named = event.body.as_ref().map(EventBody::attachments).unwrap_or_default();
        let found: Vec<_> = attachments.iter().map(|record| (record.kind, Digest::of(&record.payload))).collect();
        if named != found {
            return Err(tampered("the records beside the event are not those that it names"));
        }
        self.begin_at(&event, &attachments)?;
        self.check_snapshot(&event, &attachments)?;
        let opens = event.epoch != self.chain.epoch();
        self.chain.follow(&event).map_err(|error| tampered(error.to_string()))?;
        if self.current.as_ref().and_then(|segment| segment.header).is_none_or(|header| header.epoch != event.epoch) {
            return Err(tampered("an event of another epoch than its segment"));
        }
        self.check_epoch(&event, opens, &attachments)?;
        self.check_restored(&event, &attachments)?;
        if self.evidence.reaches(self.chain.size()) {
            self.reached.push(self.chain.state());
        }
        self.pending.push(SealedEvent { event, attachments });
        Ok(())
    }

    fn seal(&mut self, record: &Record, sink: &mut dyn FnMut(SealedEvent)) -> Checked {
        let seal = Seal::from_bytes(&record.payload).ok_or_else(|| tampered("a seal of the wrong length"))?;
        if self.is_settled() || !self.attachments.is_empty() {
            return Err(tampered("a seal that seals nothing new"));
        }
        if Some(seal.log_id) != self.log_id || seal.state != self.chain.state() {
            return Err(tampered("a seal over another state of the log"));
        }
        let opening = self.opening.as_ref().map(|(_, opening)| (opening.epoch, opening.epoch_key));
        let key = match opening {
            Some((epoch, key)) if epoch == seal.state.epoch => Some(key),
            _ => self.epoch_keys.get(&seal.state.epoch).copied(),
        };
        let key = key.ok_or_else(|| tampered("a seal of an unknown epoch"))?;
        if self.ahead.signed_by != Some(key) {
            seal.verify(&key).map_err(|_| tampered("a seal that the epoch's key did not sign"))?;
        }
        // What only an unsealed event says is not known of the log.
        self.check_numbers()?;
        self.settle_start();
        if let Some((log_key, opening)) = self.opening.take() {
            self.log_key = Some(log_key);
            self.epoch_keys.insert(opening.epoch, opening.epoch_key);
            self.epochs.push(opening);
        }
        // Only what is sealed can contradict evidence; anything else is tampering, or not there at all.
        let log_id = seal.log_id;
        let keys = Keys { log_id, log_key: self.log_key, epochs: &self.epoch_keys };
        for sealed in &self.pending {
            self.evidence.check_event(&sealed.event, &keys)?;
        }
        for state in self.reached.drain(..) {
            self.evidence.check_state(&state, &keys)?;
        }
        if let Some(epoch) = self.epochs.last_mut() {
            epoch.events = seal.state.size - epoch.first.0;
        }
        self.recent.push(&seal.state);
        self.sealed = Some(seal.state);
        self.sealed_chain.clone_from(&self.chain);
        self.unseen = 0;
        self.pending.drain(..).for_each(sink);
        Ok(())
    }

    fn checkpoint(&self, record: &Record) -> Checked {
        let (Some(log_id), Some(state)) = (self.log_id, self.sealed.filter(|_| self.is_settled())) else {
            return Err(tampered("a checkpoint of what is not sealed"));
        };
        let note = std::str::from_utf8(&record.payload).ok().and_then(|text| text.parse::<SignedNote>().ok());
        let note = note.ok_or_else(|| tampered("a checkpoint that is no signed note"))?;
        if Checkpoint::from_text(note.text()) != Ok(Checkpoint::of(log_id, &state)) {
            return Err(tampered("a checkpoint of another state of the log"));
        }
        let epoch_key =
            self.epoch_keys.get(&state.epoch).ok_or_else(|| tampered("a checkpoint of an unknown epoch"))?;
        let log_key = self.log_key.ok_or_else(|| tampered("a checkpoint before the log has a key"))?;
        let epoch_key = VerifierKey { name: epoch_key_name(log_id, state.epoch), key: *epoch_key };
        if note.signatures().len() != 2 {
            return Err(tampered("a checkpoint with other signatures than the log's two"));
        }
        for key in [log_verifier_key(log_id, log_key), epoch_key] {
            note.verify(&key).map_err(|error| tampered(error.to_string()))?;
        }
        Ok(())
    }

    fn footer(&mut self, record: &Record) -> Checked {
        let footer = Footer::from_bytes(&record.payload).ok_or_else(|| tampered("a footer of the wrong length"))?;
        if !self.is_settled() || !self.attachments.is_empty() {
            return Err(tampered("a footer behind events without a seal"));
        }
        let Some(segment) = &mut self.current else { return Ok(()) };
        let expected = Footer {
            first: segment.header.map_or(Sequence(0), |header| header.first),
            size: self.chain.size(),
            last: self.chain.last(),
            content: match (&segment.content, self.ahead.content.take()) {
                (Some(content), _) => Digest::new(content.clone().finalize().into()),
                (None, Some(content)) => content,
                (None, None) => return Err(tampered("a footer over content that nobody digested")),
            },
        };
        if footer != expected {
            return Err(tampered("the footer is that of other content"));
        }
        segment.footer = true;
        Ok(())
    }
}
