use crate::{
    audit::{
        AuditEvent, LeafError, decode_leaf,
        segment::{Record, RecordKind},
    },
    ids::Digest,
};

/// A record with everything about it that can be found out without knowing the log: for verifying on several threads.
///
/// Cut a segment with [`crate::audit::segment::RecordBuffer`], prepare its records anywhere, and hand them in their order to
/// [`super::LogVerifier::push_prepared`], which makes the same checks as for bytes and comes to the same report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedRecord {
    pub(super) record: Record,
    /// What an entry decodes to.
    pub(super) event: Option<Result<AuditEvent, LeafError>>,
    /// SHA-256 of the file before a footer's record.
    pub(super) content: Option<Digest>,
}

impl PreparedRecord {
    /// Decodes and hashes an entry: most of the work of verifying a log.
    pub fn new(record: Record) -> Self {
        let event = (record.kind == RecordKind::Entry).then(|| decode_leaf(&record.payload));
        Self { record, event, content: None }
    }

    /// With the SHA-256 of the segment's file before this record: a footer without it is refused.
    #[must_use]
    pub fn after_content(mut self, content: Digest) -> Self {
        self.content = Some(content);
        self
    }
}
