//! Whether some content is complete: what the log says was begun and done, held against a playlist and its files.
//!
//! ffmpeg, where it gets no key or cannot write, leaves segments out, ends the playlist all the same and exits 0. The log
//! knows better: keys that were issued, and pieces that were reported.

mod playlist;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use transcode_confidential::{
    audit::{AuditEvent, EventBody, KeyOperation, Reported},
    ids::{Digest, Sequence},
};

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
        let reported: BTreeMap<u64, &(Sequence, Reported)> = (self.reported.iter())
            .filter(|((job, _), _)| expected.job.as_ref().is_none_or(|wanted| wanted == job))
            .map(|((_, number), reported)| (*number, reported))
            .collect();
        let done = reported.values().filter(|(_, reported)| reported.complete).count();
        let mut findings = Vec::new();
        let mut find = |kind, segment, event, message| findings.push(Finding { kind, segment, event, message });

        let first = playlist.media_sequence;
        let mut contexts = BTreeMap::<Digest, usize>::new();
        let mut messages = 0;
        for (number, segment) in (first..).zip(&playlist.segments) {
            let uri = &segment.uri;
            let found = file(uri).filter(|found| found.length > 0);
            match &found {
                None => find(FindingKind::FileMissing, Some(number), None, format!("{uri} is missing or empty")),
                Some(found) => {
                    if let Some(context) = found.context {
                        messages += 1;
                        *contexts.entry(context).or_default() += 1;
                    }
                }
            }
            match (reported.get(&number), found) {
                (Some((event, reported)), Some(found)) if reported.output.is_some_and(|said| said != found.digest) => {
                    let message = format!("{uri} is not the file that was reported");
                    find(FindingKind::OtherFile, Some(number), Some(*event), message);
                }
                (None, _) if !reported.is_empty() => {
                    find(FindingKind::NotReported, Some(number), None, format!("{uri} was not reported"));
                }
                _ => {}
            }
        }
        let listed = first..first.saturating_add(playlist.segments.len() as u64);
        for (number, (event, reported)) in &reported {
            if !reported.complete {
                let message = format!("segment {number} was given up");
                find(FindingKind::GivenUp, Some(*number), Some(*event), message);
            } else if *number >= listed.end {
                let message = format!("segment {number} was reported and is not in the playlist");
                find(FindingKind::NotInPlaylist, Some(*number), Some(*event), message);
            }
        }
        // Numbers before the first one of a sliding window are over; between reports none may be left out.
        let last = reported.keys().next_back().copied().unwrap_or_default().max(listed.end.saturating_sub(1));
        if let Some(start) = reported.keys().next() {
            let absent = (*start.max(&first)..=last).filter(|number| !reported.contains_key(number));
            for number in absent.filter(|number| !listed.contains(number)).take(GAP_LIMIT) {
                let message = format!("segment {number} was neither reported nor written, and a later one was");
                find(FindingKind::NotInPlaylist, Some(number), None, message);
            }
        }
        // Only where the files are messages of ours can it be told which key wrote which. The same context may be asked for
        // again after a lost answer: that is still one message.
        if messages > 0 {
            let mut seen = BTreeSet::new();
            for (event, context) in &self.issued {
                let Some(context) = context.filter(|context| seen.insert(*context)) else { continue };
                if !contexts.contains_key(&context) {
                    let message = "a data key was issued, and the message that it was for is not there".to_owned();
                    find(FindingKind::NeverWritten, None, Some(*event), message);
                }
            }
        }
        // A packager asks for the key of a period when it begins to write a segment in it.
        let periods: BTreeSet<u64> = playlist.segments.iter().filter_map(PlaylistSegment::period).collect();
        if let Some(oldest) = periods.first() {
            for (period, event) in self.periods.range(oldest..).filter(|(period, _)| !periods.contains(period)) {
                let message = format!("the media key of period {period} was given out, and no segment is under it");
                find(FindingKind::NeverWritten, None, Some(*event), message);
            }
        }
        if !playlist.ended {
            find(FindingKind::Unfinished, None, None, "the playlist does not say that it is complete".into());
        }
        let count = playlist.segments.len() as u64;
        if let Some(wanted) = expected.segments.filter(|wanted| *wanted > count) {
            let message = format!("{count} segments where there should be {wanted}");
            find(FindingKind::TooShort, None, None, message);
        }
        let longest = playlist.segments.iter().map(|segment| segment.duration).fold(0.0, f64::max);
        if let Some(wanted) = expected.duration.filter(|wanted| playlist.duration() + longest < *wanted) {
            let message = format!("{:.1} s where there should be {wanted:.1} s", playlist.duration());
            find(FindingKind::TooShort, None, None, message);
        }
        let issued = self.issued.len() + self.periods.len();
        Reconciled { segments: playlist.segments.len(), reported: done, issued, findings }
    }
}

/// Gaps that are named one by one.
const GAP_LIMIT: usize = 10_000;

#[cfg(test)]
mod tests;
