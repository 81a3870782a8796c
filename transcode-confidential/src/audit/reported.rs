use crate::{
    cbor::{CborError, MapReader, Writer},
    ids::Digest,
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

    /// Length of its longest text, beyond any limit where it is beyond its own.
    pub(super) const fn longest_text(&self) -> usize {
        if self.job.len() > JOB_LIMIT { usize::MAX } else { self.job.len() }
    }
}
