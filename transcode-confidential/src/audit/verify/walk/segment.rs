//! One segment file while it is read: its header, its records, and how it may end.

use sha2::{Digest as _, Sha256};

use super::{Checked, LogVerifier, SealedEvent, damaged, start::Start, tampered};
use crate::{
    audit::{
        segment::{Record, RecordBuffer, RecordKind, SegmentHeader, SegmentName},
        verify::{Tail, Verdict, tail::TornTail},
    },
    ids::Sequence,
};

/// The segment that is being read.
pub(super) struct Segment {
    pub(super) name: SegmentName,
    pub(super) head: Vec<u8>,
    pub(super) header: Option<SegmentHeader>,
    pub(super) records: RecordBuffer,
    /// Digest of the file so far; `None` where whoever prepares the records makes it.
    pub(super) content: Option<Sha256>,
    /// Offset behind the last seal, checkpoint or footer: what lies before it is settled.
    pub(super) settled: u64,
    pub(super) unsettled_records: u64,
    /// Offset of the record that is being checked.
    pub(super) checking: Option<u64>,
    pub(super) footer: bool,
    /// Lies before the beginning of the log.
    pub(super) passed_over: bool,
    pub(super) torn: Option<(TornTail, String)>,
}

impl LogVerifier {
    pub(super) fn take(&mut self, bytes: &[u8], sink: &mut dyn FnMut(SealedEvent)) -> Checked {
        let Some(segment) = &mut self.current else { return Ok(()) };
        if segment.passed_over {
            return Ok(());
        }
        if segment.torn.is_some() {
            segment.push(bytes);
            return Ok(());
        }
        let rest = segment.take_head(bytes);
        if segment.header.is_none() {
            let Ok(head) = <&[u8; SegmentHeader::LEN]>::try_from(segment.head.as_slice()) else { return Ok(()) };
            let header = match SegmentHeader::from_bytes(head) {
                Ok(header) => header,
                Err(error) => {
                    let mut tail = TornTail::new(0, &segment.head);
                    tail.push(rest);
                    segment.torn = Some((tail, error.to_string()));
                    segment.head.clear();
                    return Ok(());
                }
            };
            segment.header = Some(header);
            self.enter(&header)?;
        }
        if let Some(segment) = &mut self.current {
            segment.push(rest);
        }
        while let Some(record) = self.next_record()? {
            self.record(record, sink)?;
            if let Some(segment) = &mut self.current {
                segment.checking = None;
            }
        }
        Ok(())
    }

    /// The next record of the current segment; `None` where more bytes are needed or the rest of the file is unreadable.
    fn next_record(&mut self) -> Result<Option<Record>, (Verdict, String)> {
        let Some(segment) = &mut self.current else { return Ok(None) };
        if segment.torn.is_some() || segment.passed_over {
            return Ok(None);
        }
        let offset = segment.records.offset();
        match segment.records.next_record() {
            Ok(record) => {
                segment.checking = record.is_some().then_some(offset);
                Ok(record)
            }
            Err(error) => {
                let tail = TornTail::new(error.offset, segment.records.rest());
                segment.torn = Some((tail, error.to_string()));
                Ok(None)
            }
        }
    }

    /// Checks a segment's header against what came before it.
    fn enter(&mut self, header: &SegmentHeader) -> Checked {
        let name = self.current.as_ref().map(|segment| segment.name);
        if name != Some(header.name()) {
            return Err(tampered("the file's name is not that of its segment"));
        }
        match self.log_id {
            None => {
                self.evidence.check_log(header.log_id)?;
                self.log_id = Some(header.log_id);
                if header.first != Sequence(0) {
                    self.enter_late(header);
                }
            }
            Some(log_id) if log_id != header.log_id => {
                return Err(tampered(format!("a segment of log {} in log {log_id}", header.log_id)));
            }
            Some(_) => {}
        }
        if let Start::Due(_) = self.start {
            return Ok(());
        }
        if header.first.0 > self.chain.size() {
            return Err(tampered(format!("events {} to {} are missing", self.chain.size(), header.first.0 - 1)));
        }
        if header.first.0 < self.chain.size() {
            return Err(tampered(format!("event {} appears a second time", header.first)));
        }
        if header.previous != self.chain.last() {
            return Err(tampered("the segment does not follow on the one before"));
        }
        if header.epoch < self.chain.epoch() {
            return Err(tampered("the segment goes back to an earlier epoch"));
        }
        Ok(())
    }

    /// A segment that is followed by another must be whole and closed.
    pub(super) fn close_inner_segment(&mut self) -> Checked {
        let Some(segment) = self.current.take() else { return Ok(()) };
        let result = match &segment.torn {
            _ if segment.passed_over => Ok(()),
            Some((_, what)) => Err(damaged(what.clone())),
            None if segment.header.is_none() => Err(damaged("the file ends inside its header")),
            None if !segment.records.rest().is_empty() => Err(damaged("the file ends inside a record")),
            None if !self.is_settled() || !self.attachments.is_empty() => {
                Err(tampered("events without a seal in the middle of the log"))
            }
            None if !segment.footer => Err(damaged("a closed segment without a footer")),
            None => Ok(()),
        };
        if result.is_err() {
            self.current = Some(segment);
        }
        result
    }

    /// The last segment may end in an interrupted write.
    pub(super) fn close_last_segment(&mut self) -> Result<Option<Tail>, (Verdict, String)> {
        let Some(segment) = self.current.as_ref().filter(|segment| !segment.passed_over) else { return Ok(None) };
        if let Some((tail, what)) = &segment.torn
            && !tail.is_torn()
        {
            return Err(damaged(what.clone()));
        }
        let unread = segment.torn.as_ref().map_or(segment.records.rest().len() as u64, |(tail, _)| tail.len());
        let (read, settled) = match segment.header {
            Some(_) => (segment.records.offset(), segment.settled),
            None => (segment.head.len() as u64, 0),
        };
        let bytes = read + unread - settled;
        let tail = Tail { segment: segment.name, offset: settled, records: segment.unsettled_records, bytes };
        Ok((tail.bytes > 0).then_some(tail))
    }
}

impl Segment {
    pub(super) fn new(name: SegmentName) -> Self {
        Self {
            name,
            head: Vec::new(),
            header: None,
            records: RecordBuffer::at(SegmentHeader::LEN as u64),
            content: Some(Sha256::new()),
            settled: SegmentHeader::LEN as u64,
            unsettled_records: 0,
            checking: None,
            footer: false,
            passed_over: false,
            torn: None,
        }
    }

    /// Fills up the header; gives what is left of `bytes`.
    fn take_head<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if self.header.is_some() {
            return bytes;
        }
        let room = (SegmentHeader::LEN - self.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(room);
        self.head.extend_from_slice(head);
        if self.head.len() == SegmentHeader::LEN
            && let Some(content) = &mut self.content
        {
            content.update(&self.head);
        }
        rest
    }

    fn push(&mut self, bytes: &[u8]) {
        match &mut self.torn {
            Some((tail, _)) => tail.push(bytes),
            None => self.records.push(bytes),
        }
    }

    pub(super) fn account(&mut self, record: &Record) {
        if let Some(content) = &mut self.content {
            let mut disk = Vec::with_capacity(record.disk_len());
            record.write_to(&mut disk);
            content.update(&disk);
        }
        self.unsettled_records += 1;
        if matches!(record.kind, RecordKind::Seal | RecordKind::Checkpoint | RecordKind::Footer) {
            self.settled = self.records.offset();
            self.unsettled_records = 0;
        }
    }

    /// Where reading stopped: at the record that is wrong, or at the first byte that is missing or cannot be read.
    pub(super) fn place(&self) -> u64 {
        if self.header.is_some() { self.checking.unwrap_or(self.records.offset()) } else { 0 }
    }
}
