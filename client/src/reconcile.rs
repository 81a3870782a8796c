//! Whether some content is complete: what the log says was begun and done, held against a playlist and its files.
//!
//! ffmpeg, where it gets no key or cannot write, leaves segments out, ends the playlist all the same and exits 0. The log
//! knows better: keys that were issued, and pieces that were reported.

mod findings;
mod playlist;

use std::collections::BTreeMap;

use serde::Serialize;
use transcode_confidential::{
    audit::{AuditEvent, EventBody, KeyOperation, Reported},
    ids::{Digest, Sequence},
};

use findings::{Findings, Reports};
pub use playlist::{Playlist, PlaylistError, PlaylistSegment};

/// What a log says about one content.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Keys that were given out to write something: event and digest of the context, where there was one.
    issued: Vec<(Sequence, Option<Digest>)>,
    /// Periods whose media key was given out, and when first.
    periods: BTreeMap<u64, Sequence>,
    /// Pieces that were reported, by job and number; the last word on each.
    reported: BTreeMap<(String, u64), (Sequence, Reported)>,
}

/// What is known of the file of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its length, in bytes.
    pub length: u64,
    /// SHA-256 of all of it.
    pub digest: Digest,
    /// Where it is a message of ours: digest of the context that it claims.
    pub context: Option<Digest>,
}

/// How much there should be, where somebody knows that from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The job whose reports count; all of them where none is named.
    pub job: Option<String>,
    /// How many segments.
    pub segments: Option<u64>,
    /// How many seconds, give or take the longest segment.
    pub duration: Option<f64>,
}

/// Something that is missing, or not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What, for programs.
    pub kind: FindingKind,
    /// The media sequence number, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<u64>,
    /// The event that says that there should be something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Sequence>,
    /// What, for people.
    pub message: String,
}

/// What kind of thing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingKind {
    /// Reported as done, and not in the playlist.
    NotInPlaylist,
    /// Its data key was issued, or the media key of its period, and nothing is there under it.
    NeverWritten,
    /// In the playlist, and not in the directory, or empty.
    FileMissing,
    /// The file is not the one that was reported.
    OtherFile,
    /// Reported as given up, and never as done.
    GivenUp,
    /// In the playlist, and not reported, where others were.
    NotReported,
    /// The playlist does not say that it is complete.
    Unfinished,
    /// Fewer segments, or seconds, than there should be.
    TooShort,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// Segments in the playlist.
    pub segments: usize,
    /// Pieces that were reported as done.
    pub reported: usize,
    /// Keys that were given out.
    pub issued: usize,
    /// What is missing, nothing where it is complete.
    pub findings: Vec<Finding>,
}

impl Recorded {
    /// Takes in an event, if it is about this content.
    pub fn take(&mut self, event: &AuditEvent, content_id: &str) {
        if event.content_id.as_deref() != Some(content_id) {
            return;
        }
        match &event.body {
            Some(EventBody::KeyUsed {
                operation: KeyOperation::Encrypt | KeyOperation::IssueDataKey, context, ..
            }) => self.issued.push((event.sequence, *context)),
            Some(EventBody::KeyUsed { operation: KeyOperation::DeriveMediaKey, period: Some(period), .. }) => {
                self.periods.entry(period.0).or_insert(event.sequence);
            }
            Some(EventBody::Reported(reported)) => {
                let slot = self.reported.entry((reported.job.clone(), reported.number));
                let slot = slot.or_insert_with(|| (event.sequence, reported.clone()));
                // Whoever tried again and succeeded has the last word, in whichever order that came.
                if reported.complete || !slot.1.complete {
                    *slot = (event.sequence, reported.clone());
                }
            }
            _ => {}
        }
    }

    /// Holds what was recorded against a playlist and its files.
    pub fn reconcile(
        &self,
        playlist: &Playlist,
        expected: &Expected,
        mut file: impl FnMut(&str) -> Option<SegmentFile>,
    ) -> Reconciled {
        let reports: Reports<'_> = (self.reported.iter())
            .filter(|((job, _), _)| expected.job.as_ref().is_none_or(|wanted| wanted == job))
            .map(|((_, number), reported)| (*number, reported))
            .collect();
        let mut findings = Findings::default();
        let contexts = findings.of_files(playlist, &reports, &mut file);
        findings.of_reports(playlist, &reports);
        if !contexts.is_empty() {
            findings.of_data_keys(&self.issued, &contexts);
        }
        findings.of_periods(playlist, &self.periods);
        findings.of_size(playlist, expected);
        Reconciled {
            segments: playlist.segments.len(),
            reported: reports.values().filter(|(_, reported)| reported.complete).count(),
            issued: self.issued.len() + self.periods.len(),
            findings: findings.found,
        }
    }
}

#[cfg(test)]
mod tests;
