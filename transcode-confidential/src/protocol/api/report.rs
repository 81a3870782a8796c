use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::ReceiptText;
use crate::{
    audit::{JOB_LIMIT, Reported},
    ids::{Digest, KeyId, KeyVersion},
};

/// Body of `POST /v1/content/{content id}/report`: what a transcoder did with a piece of that content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportContent {
    /// The key that the content is under; the grant `report` is for keys.
    pub key: KeyId,
    /// The version of that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<KeyVersion>,
    /// Names the job; 1 to 256 bytes.
    pub job: String,
    /// Number of the piece within the job; for segments, the media sequence number.
    pub sequence: u64,
    /// Whether the piece is complete; given up otherwise.
    #[serde(default = "yes")]
    pub complete: bool,
    /// Frames, as the transcoder counts them.
    #[serde(default)]
    pub frames: u64,
    /// Bytes read.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes written.
    #[serde(default)]
    pub bytes_out: u64,
    /// SHA-256 of what was read, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_digest: Option<Digest>,
    /// SHA-256 of what was written, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_digest: Option<Digest>,
}

/// Answer to [`ReportContent`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentReported {
    /// Receipt of the event that records it; of the first, where the same was reported before.
    pub receipt: ReceiptText,
    /// Whether the same was reported before.
    #[serde(default)]
    pub repeated: bool,
}

/// A name of a job that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("job: 1 to {JOB_LIMIT} bytes")]
pub struct JobError;

impl ReportContent {
    /// What goes on the record.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn to_reported(&self) -> Result<Reported, JobError> {
        if self.job.is_empty() || self.job.len() > JOB_LIMIT {
            return Err(JobError);
        }
        Ok(Reported {
            job: self.job.clone(),
            number: self.sequence,
            complete: self.complete,
            frames: self.frames,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            input: self.input_digest,
            output: self.output_digest,
        })
    }
}

const fn yes() -> bool {
    true
}
