use transcode_confidential::protocol::host::{Append, HostError, STAGE_LIMIT};

/// Records that wait for the batch that they belong to. They are in memory only: a connection that ends takes them along,
/// and the enclave sends them again.
#[derive(Debug, Default)]
pub(super) struct Staged(Vec<u8>);

impl Staged {
    /// Takes records in, behind those that are there.
    pub(super) fn add(&mut self, records: &[u8]) -> Result<(), HostError> {
        if self.0.len() + records.len() > STAGE_LIMIT {
            *self = Self::default();
            return Err(HostError::Refused);
        }
        self.0.extend_from_slice(records);
        Ok(())
    }

    /// The batch with everything that was staged for it.
    pub(super) fn before(&mut self, append: Append) -> Append {
        if self.0.is_empty() {
            return append;
        }
        let Self(mut records) = std::mem::take(self);
        records.extend_from_slice(&append.records);
        Append { records, ..append }
    }
}
