//! Rows: the encoding of a list of things that may be long, in parts that each fit a record.

use crate::{
    audit::segment::RECORD_LIMIT,
    cbor::{CborError, MapReader, Reader, Writer},
};

/// Head of the longest array that a part can be.
const ARRAY_HEAD: usize = 5;
/// Most members of any row.
const MEMBERS: usize = 16;

/// Writes rows into parts. A row begins the next part where this one has no room for it.
#[derive(Debug, Default)]
pub(crate) struct RowWriter {
    parts: Vec<Vec<u8>>,
    rows: Vec<u8>,
    count: usize,
}

impl RowWriter {
    /// Adds a row: one map, whose key 0 is the kind.
    pub(crate) fn row(&mut self, members: usize, kind: u64, write: impl FnOnce(&mut Writer)) {
        let mut row = Writer::new();
        row.map(members + 1).uint(0).uint(kind);
        write(&mut row);
        if ARRAY_HEAD + self.rows.len() + row.as_slice().len() > RECORD_LIMIT {
            self.end_part();
        }
        self.rows.extend_from_slice(row.as_slice());
        self.count += 1;
    }

    /// The parts.
    pub(super) fn into_parts(mut self) -> Vec<Vec<u8>> {
        self.end_part();
        self.parts
    }

    fn end_part(&mut self) {
        if self.count > 0 {
            let mut part = Writer::with_capacity(ARRAY_HEAD + self.rows.len());
            part.array(self.count).raw(&self.rows);
            self.parts.push(part.into_bytes());
            self.rows.clear();
            self.count = 0;
        }
    }
}

/// One row while it is read.
pub(crate) type RowReader<'r, 'a> = MapReader<'r, 'a>;

/// Gives each row of a part to `take`, with its kind.
pub(super) fn read<'a>(
    part: &'a [u8],
    mut take: impl FnMut(u64, &mut RowReader<'_, 'a>) -> Result<(), CborError>,
) -> Result<(), CborError> {
    let mut reader = Reader::new(part);
    for _ in 0..reader.array(RECORD_LIMIT)? {
        let mut row = reader.int_map(MEMBERS)?;
        let kind = row.required(0)?.uint()?;
        take(kind, &mut row)?;
        row.end()?;
    }
    reader.end()
}
