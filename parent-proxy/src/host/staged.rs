use transcode_confidential::{
    audit::segment::Record,
    protocol::host::{Append, HostError, STAGE_LIMIT},
};

/// Records that wait for the batch that they belong to. They are in memory only: a connection that ends takes them along,
/// and the enclave sends them again.
#[derive(Debug, Default)]
pub(super) struct Staged {
    records: Vec<Record>,
    bytes: usize,
}

impl Staged {
    /// Takes records in, behind those that are there.
    pub(super) fn add(&mut self, records: Vec<Record>) -> Result<(), HostError> {
        self.bytes += records.iter().map(Record::disk_len).sum::<usize>();
        // The heads of at most so many records come on top of what they hold.
        if self.bytes > STAGE_LIMIT + STAGE_LIMIT / 16 {
            *self = Self::default();
            return Err(HostError::Refused);
        }
        self.records.extend(records);
        Ok(())
    }

    /// The batch with everything that was staged for it.
    pub(super) fn before(&mut self, append: Append) -> Append {
        if self.records.is_empty() {
            return append;
        }
        let mut records = std::mem::take(self).records;
        records.extend(append.records);
        Append { records, ..append }
    }
}
