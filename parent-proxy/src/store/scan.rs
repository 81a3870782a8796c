//! Reading a segment through: is it whole, how far is it sealed, which events are in it?

use std::io;

use transcode_confidential::{
    audit::{
        Seal, decode_leaf, leaf_hash,
        segment::{DamageKind, Footer, RecordBuffer, RecordKind, SegmentError, SegmentHeader},
        tree::Frontier,
    },
    fold::Snapshot,
    ids::LeafHash,
    protocol::host::Durable,
    time::Timestamp,
};

use super::disk::{DiskFile, read_full};

const CHUNK: usize = 256 * 1024;

/// What a segment file holds, by its structure and check sums. Signatures are for the enclave and the auditor to check.
#[derive(Debug)]
pub(super) struct Scanned {
    /// The header, where it is one.
    pub(super) header: Option<SegmentHeader>,
    /// Length of the file.
    pub(super) length: u64,
    /// Where the last seal ends; 0 where there is none.
    pub(super) sealed_end: u64,
    /// Where what is settled ends: behind the last seal, the checkpoints that follow right on it, and a footer.
    pub(super) settled: u64,
    /// Where the batch of that seal starts.
    pub(super) batch_start: u64,
    /// What that seal says.
    pub(super) durable: Option<Durable>,
    /// Whether a footer ends what is settled.
    pub(super) closed: bool,
    /// Whether the first record is a part of a snapshot.
    pub(super) snapshot: bool,
    /// What that part says of the tree before it.
    pub(super) before: Option<Frontier>,
    /// When the last event of a closed segment was, by its own word.
    pub(super) newest: Option<Timestamp>,
    /// What ended the scan before the end of the file.
    pub(super) damage: Option<Damage>,
}

/// Why a scan ended early, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) offset: u64,
    pub(super) problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Header(#[from] SegmentError),
    #[error(transparent)]
    Record(#[from] DamageKind),
    #[error("a seal does not fit what it seals")]
    Seal,
    #[error("records follow the last seal")]
    Unsealed,
    #[error("bytes follow the footer")]
    AfterFooter,
    #[error("the packed file is damaged")]
    Packed,
}

impl Scanned {
    /// Whether bytes follow that are not settled.
    pub(super) const fn has_tail(&self) -> bool {
        self.length > self.settled
    }
}

/// Reads a segment. `leaf` is told every sealed event, in order: position and leaf hash.
pub(super) fn scan(file: &dyn DiskFile, leaf: &mut dyn FnMut(u64, LeafHash)) -> io::Result<Scanned> {
    let length = file.length()?;
    let (sealed_end, settled, batch_start) = (0, 0, 0);
    let (header, durable, closed, damage) = (None, None, false, None);
    let (snapshot, before, newest) = (false, None, None);
    let mut scanned =
        Scanned { header, length, sealed_end, settled, batch_start, durable, closed, snapshot, before, newest, damage };
    let mut head = [0; SegmentHeader::LEN];
    let read = match read_full(file, &mut head, 0) {
        Err(error) if packed::is_damage(&error) => {
            scanned.length = 0;
            scanned.damage = Some(Damage { offset: 0, problem: Problem::Packed });
            return Ok(scanned);
        }
        read => read?,
    };
    if read < head.len() {
        scanned.damage = Some(Damage { offset: 0, problem: Problem::Record(DamageKind::Ends) });
        return Ok(scanned);
    }
    let header = match SegmentHeader::from_bytes(&head) {
        Ok(header) => header,
        Err(error) => {
            scanned.damage = Some(Damage { offset: 0, problem: error.into() });
            return Ok(scanned);
        }
    };
    scanned.header = Some(header);
    scanned.batch_start = SegmentHeader::LEN as u64;
    let (size, start) = (header.first.0, SegmentHeader::LEN as u64);
    let mut walk = Walk { header, scanned, size, batch: Vec::new(), newest: Vec::new(), start };
    walk.records(file, leaf)?;
    Ok(walk.scanned)
}

/// A scan under way.
struct Walk {
    header: SegmentHeader,
    scanned: Scanned,
    /// Size of the log after the last seal.
    size: u64,
    /// Leaf hashes since the last seal.
    batch: Vec<LeafHash>,
    /// The newest leaf.
    newest: Vec<u8>,
    /// Where the batch under way starts.
    start: u64,
}

impl Walk {
    fn records(&mut self, file: &dyn DiskFile, leaf: &mut dyn FnMut(u64, LeafHash)) -> io::Result<()> {
        let mut buffer = RecordBuffer::at(SegmentHeader::LEN as u64);
        let mut chunk = vec![0; usize::try_from(self.scanned.length).unwrap_or(CHUNK).min(CHUNK)];
        let mut position = SegmentHeader::LEN as u64;
        loop {
            let at = buffer.offset();
            let problem = match buffer.next_record() {
                Ok(Some(_)) if self.scanned.closed => Problem::AfterFooter,
                Ok(Some(record)) => match record.kind {
                    RecordKind::Entry => {
                        self.batch.push(leaf_hash(&record.payload));
                        self.newest = record.payload;
                        continue;
                    }
                    RecordKind::Seal if self.seal(&record.payload, buffer.offset(), leaf) => continue,
                    RecordKind::Seal => Problem::Seal,
                    RecordKind::Footer if at == self.scanned.settled && self.footer(&record.payload) => {
                        self.scanned.settled = buffer.offset();
                        continue;
                    }
                    RecordKind::Footer => Problem::Seal,
                    RecordKind::Snapshot if at == SegmentHeader::LEN as u64 => {
                        self.scanned.snapshot = true;
                        let place = Snapshot::place(&record.payload);
                        self.scanned.before = place.ok().map(|(_, chain)| chain.frontier().clone());
                        continue;
                    }
                    RecordKind::Checkpoint if at == self.scanned.settled => {
                        self.scanned.settled = buffer.offset();
                        continue;
                    }
                    _ => continue,
                },
                Err(error) => error.kind.into(),
                Ok(None) => {
                    let count = match read_full(file, &mut chunk, position) {
                        // For whoever reads the segment it ends here.
                        Err(error) if packed::is_damage(&error) => {
                            self.scanned.length = position;
                            self.scanned.damage = Some(Damage { offset: at, problem: Problem::Packed });
                            return Ok(());
                        }
                        count => count?,
                    };
                    if count > 0 {
                        buffer.push(chunk.get(..count).unwrap_or_default());
                        position += count as u64;
                        continue;
                    }
                    // The end of the file: inside a record, behind a seal or footer, or behind records without a seal.
                    if !buffer.rest().is_empty() {
                        DamageKind::Ends.into()
                    } else if at != self.scanned.settled {
                        Problem::Unsealed
                    } else {
                        return Ok(());
                    }
                }
            };
            self.scanned.damage = Some(Damage { offset: at, problem });
            return Ok(());
        }
    }

    /// Ends a batch, where the seal is about this log and counts as we do.
    fn seal(&mut self, payload: &[u8], end: u64, leaf: &mut dyn FnMut(u64, LeafHash)) -> bool {
        let Some(seal) = Seal::from_bytes(payload) else { return false };
        let fits = seal.log_id == self.header.log_id
            && seal.state.epoch == self.header.epoch
            && seal.state.size.checked_sub(self.size) == Some(self.batch.len() as u64)
            && self.batch.last().is_some_and(|last| *last == seal.state.last);
        if !fits {
            return false;
        }
        for (hash, position) in self.batch.drain(..).zip(self.size..) {
            leaf(position, hash);
        }
        self.size = seal.state.size;
        self.scanned.batch_start = self.start;
        self.scanned.sealed_end = end;
        self.scanned.settled = end;
        self.scanned.durable = Some(Durable { size: seal.state.size, last: seal.state.last });
        self.start = end;
        true
    }

    fn footer(&mut self, payload: &[u8]) -> bool {
        let fits = Footer::from_bytes(payload).is_some_and(|footer| {
            footer.first == self.header.first
                && self.scanned.durable == Some(Durable { size: footer.size, last: footer.last })
        });
        self.scanned.closed = fits;
        self.scanned.newest = decode_leaf(&self.newest).ok().filter(|_| fits).map(|event| event.time);
        fits
    }
}
