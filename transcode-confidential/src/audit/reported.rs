use sha2::{Digest as _, Sha256};

use super::{AuditEvent, EventBody, RequestTag};
use crate::{
    cbor::{CborError, MapReader, Writer},
    ids::{Digest, KeyVersion},
};

/// Longest name of a job, in bytes.
pub const JOB_LIMIT: usize = 256;

/// What a transcoder says about a piece of its work, in the body of a `ContentProcessed` event. The enclave has seen none of
/// it: that its principal said so is all that the record shows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Reported {
    /// The job that the piece belongs to, as its principal names it.
    pub job: String,
    /// The piece's number within the job: for segments, the media sequence number.
    pub number: u64,
    /// Whether the piece is complete; given up otherwise.
    pub complete: bool,
    /// Frames, as the transcoder counts them.
    pub frames: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// SHA-256 of what was read.
    pub input: Option<Digest>,
    /// SHA-256 of what was written.
    pub output: Option<Digest>,
}

/// Whose report it is, and what it is about.
#[derive(Debug, Clone, Copy)]
pub struct ReportOf<'a> {
    /// Who reports.
    pub principal: &'a str,
    /// The content that the piece belongs to.
    pub content: &'a str,
    /// The key that it is under.
    pub key: &'a str,
    /// The version of that key, where it was named.
    pub version: Option<KeyVersion>,
}

impl Reported {
    pub(super) const KIND: u64 = 14;

    pub(super) fn encode(&self, out: &mut Writer) {
        let digests = [(7, self.input), (8, self.output)];
        out.map(7 + digests.iter().filter(|(_, digest)| digest.is_some()).count());
        out.uint(0).uint(Self::KIND).uint(1).text(&self.job).uint(2).uint(self.number).uint(3).bool(self.complete);
        out.uint(4).uint(self.frames).uint(5).uint(self.bytes_in).uint(6).uint(self.bytes_out);
        for (key, digest) in digests {
            if let Some(digest) = digest {
                out.uint(key).bytes(digest.as_bytes());
            }
        }
    }

    pub(super) fn decode(map: &mut MapReader<'_, '_>) -> Result<Self, CborError> {
        let job = map.required(1)?.text(JOB_LIMIT)?.to_owned();
        let number = map.required(2)?.uint()?;
        let complete = map.required(3)?.bool()?;
        let [frames, bytes_in, bytes_out] =
            [map.required(4)?.uint()?, map.required(5)?.uint()?, map.required(6)?.uint()?];
        let mut digest = |key| map.optional(key)?.map(|reader| reader.array_of().map(Digest::new)).transpose();
        let (input, output) = (digest(7)?, digest(8)?);
        Ok(Self { job, number, complete, frames, bytes_in, bytes_out, input, output })
    }

    /// Names the report and what it says, so that the same one is known when it comes again:
    /// `key = SHA-256("transcode-confidential/report/v1" || 0x00 || principal || content || job || number (8))`, each text with
    /// its length (8) before it; `request = SHA-256(key id || version (8), 0 for none || the body of the event)`, the key id
    /// likewise.
    pub fn tag(&self, of: &ReportOf<'_>) -> RequestTag {
        let text = |hash: Sha256, text: &str| hash.chain_update((text.len() as u64).to_be_bytes()).chain_update(text);
        let start = Sha256::new().chain_update(b"transcode-confidential/report/v1\0");
        let name = [of.principal, of.content, &self.job].into_iter().fold(start, text);
        let name = name.chain_update(self.number.to_be_bytes());
        let mut body = Writer::new();
        self.encode(&mut body);
        let version = of.version.map_or(0, |version| u64::from(version.0));
        let said = text(Sha256::new(), of.key).chain_update(version.to_be_bytes()).chain_update(body.into_bytes());
        RequestTag { key: Digest::new(name.finalize().into()), request: Digest::new(said.finalize().into()) }
    }

    /// Length of its longest text, beyond any limit where it is beyond its own.
    pub(super) const fn longest_text(&self) -> usize {
        if self.job.len() > JOB_LIMIT { usize::MAX } else { self.job.len() }
    }
}

impl AuditEvent {
    /// The tag of the report that this event records.
    pub(crate) fn report_tag(&self) -> Option<RequestTag> {
        let Some(EventBody::Reported(reported)) = &self.body else { return None };
        let (principal, content, key) =
            (self.principal.as_deref()?, self.content_id.as_deref()?, self.key_id.as_deref()?);
        Some(reported.tag(&ReportOf { principal, content, key, version: self.key_version }))
    }
}
