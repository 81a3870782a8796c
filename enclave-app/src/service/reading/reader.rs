use transcode_confidential::{
    audit::{
        Seal,
        segment::{RecordBuffer, RecordKind, SegmentHeader, SegmentName},
    },
    ids::Sequence,
    protocol::{
        api::{ErrorCode, LOG_PAGE_LIMIT, LogCursor},
        host::{READ_LIMIT, Reply, Request, SegmentInfo},
    },
};

use super::Failure;
use crate::host::CurrentLink;

/// A page is full at its first seal behind this many bytes; one batch more still fits the limit of a page.
const FULL: usize = 256 * 1024;
/// Most bytes of segments that are looked through for one page. Where that was not enough, the cursor says where to go on.
const LOOK: usize = 16 * 1024 * 1024;

/// Reads entries and seals from the parent's segments. What a batch has besides, wrapped keys above all, stays here.
pub(super) struct Reader<'a> {
    link: &'a CurrentLink,
    /// Number of durable events; what lies behind them is not read.
    size: u64,
    looked: usize,
}

/// What was read. Empty where the place was not reached yet, or lies before the first event that is stored.
pub(super) struct Read {
    pub(super) records: Vec<u8>,
    pub(super) first: Sequence,
    pub(super) next: Option<LogCursor>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(link: &'a CurrentLink, size: u64) -> Self {
        Self { link, size, looked: 0 }
    }

    /// Whole batches from event `from` on, without the events before it.
    pub(super) async fn page(mut self, from: Sequence, cursor: Option<LogCursor>) -> Result<Read, Failure> {
        let cursor = cursor.filter(|cursor| cursor.sequence <= from);
        let (mut at, first) = match cursor {
            Some(cursor) => (cursor, cursor.sequence),
            None => match self.segment_of(from).await? {
                (Some(segment), first) => (start_of(segment), first),
                (None, first) => return Ok(Read { records: Vec::new(), first, next: None }),
            },
        };
        let mut page = Filling { from, whole: Vec::new(), batch: Vec::new() };
        loop {
            let end = self.read_segment(&mut at, &mut page).await?;
            if page.whole.len() >= FULL || at.sequence.0 >= self.size || self.looked >= LOOK {
                return Ok(Read { records: page.whole, first, next: Some(at) });
            }
            // Not all that is durable was seen: it goes on in the next segment.
            let next = if end { self.segments(Some(at.segment)).await?.first().copied() } else { None };
            let next = next.filter(|next| next.name.first == at.sequence);
            at = start_of(next.ok_or_else(unreadable)?.name);
        }
    }

    /// Reads on in a segment, batch by batch, until the page is full, there is nothing more that is durable, or enough was
    /// looked through. Says whether the segment ended.
    async fn read_segment(&mut self, at: &mut LogCursor, page: &mut Filling) -> Result<bool, Failure> {
        let mut records = RecordBuffer::at(at.offset);
        let mut sequence = at.sequence.0;
        let mut position = at.offset;
        loop {
            while let Some(record) = records.next_record().map_err(|_| unreadable())? {
                match record.kind {
                    RecordKind::Entry => {
                        if sequence >= page.from.0 {
                            record.write_to(&mut page.batch);
                        }
                        sequence += 1;
                    }
                    RecordKind::Seal => {
                        let seal = Seal::from_bytes(&record.payload).filter(|seal| seal.state.size == sequence);
                        if seal.is_none() || sequence > self.size {
                            return Err(unreadable());
                        }
                        if sequence > page.from.0 {
                            record.write_to(&mut page.batch);
                            page.whole.append(&mut page.batch);
                        }
                        (at.offset, at.sequence) = (records.offset(), Sequence(sequence));
                        if page.whole.len() >= FULL || sequence == self.size || self.looked >= LOOK {
                            return Ok(false);
                        }
                    }
                    RecordKind::Footer => return Ok(true),
                    _ => {}
                }
                if page.whole.len() + page.batch.len() > LOG_PAGE_LIMIT {
                    return Err(unreadable());
                }
            }
            let request = Request::Read { name: at.segment, offset: position, length: READ_LIMIT };
            let Reply::Bytes(bytes) = self.link.call(request).await? else { return Err(unreadable()) };
            if bytes.is_empty() || bytes.len() > READ_LIMIT {
                return Ok(true);
            }
            position += bytes.len() as u64;
            self.looked += bytes.len();
            records.push(&bytes);
        }
    }

    /// The segment that event `from` lies in, if it is still stored; and the first event that is.
    async fn segment_of(&self, from: Sequence) -> Result<(Option<SegmentName>, Sequence), Failure> {
        let mut after = None;
        let mut first = None;
        let mut found = None;
        loop {
            let segments = self.segments(after).await?;
            for segment in &segments {
                let name = segment.name;
                first.get_or_insert(name.first);
                if after.is_some_and(|after| name <= after) {
                    return Err(unreadable());
                }
                if name.first > from {
                    return Ok((found, first.unwrap_or(name.first)));
                }
                (after, found) = (Some(name), Some(name));
            }
            if segments.is_empty() {
                return Ok((found, first.ok_or_else(unreadable)?));
            }
        }
    }

    async fn segments(&self, after: Option<SegmentName>) -> Result<Vec<SegmentInfo>, Failure> {
        match self.link.call(Request::Segments { after }).await? {
            Reply::Segments(segments) => Ok(segments),
            _ => Err(unreadable()),
        }
    }
}

/// A page on its way.
struct Filling {
    from: Sequence,
    whole: Vec<u8>,
    /// Entries since the last seal.
    batch: Vec<u8>,
}

const fn start_of(segment: SegmentName) -> LogCursor {
    LogCursor { segment, offset: SegmentHeader::LEN as u64, sequence: segment.first }
}

fn unreadable() -> Failure {
    Failure::new(ErrorCode::AuditUnavailable, "the parent's copy of the log cannot be read there")
}
