//! The questions that are asked of a playlist, one by one.

use std::collections::{BTreeMap, BTreeSet};

use transcode_confidential::{
    audit::Reported,
    ids::{Digest, Sequence},
};

use super::{Expected, Finding, FindingKind, Playlist, PlaylistSegment, SegmentFile};

/// The last word on each piece, by its number.
pub(super) type Reports<'a> = BTreeMap<u64, &'a (Sequence, Reported)>;

/// Gaps that are named one by one.
const GAP_LIMIT: usize = 10_000;

/// What was found so far, in the order of the questions.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) found: Vec<Finding>,
}

impl Findings {
    /// Whether each file of the playlist is there, and is what was reported. Gives the contexts of those that are messages of
    /// ours.
    pub(super) fn of_files(
        &mut self,
        playlist: &Playlist,
        reports: &Reports<'_>,
        file: &mut dyn FnMut(&str) -> Option<SegmentFile>,
    ) -> BTreeSet<Digest> {
        let mut contexts = BTreeSet::new();
        for (number, segment) in (playlist.media_sequence..).zip(&playlist.segments) {
            let uri = &segment.uri;
            let found = file(uri).filter(|found| found.length > 0);
            match &found {
                None => self.add(FindingKind::FileMissing, Some(number), None, format!("{uri} is missing or empty")),
                Some(found) => contexts.extend(found.context),
            }
            match (reports.get(&number), found) {
                (Some((event, reported)), Some(found)) if reported.output.is_some_and(|said| said != found.digest) => {
                    let message = format!("{uri} is not the file that was reported");
                    self.add(FindingKind::OtherFile, Some(number), Some(*event), message);
                }
                (None, _) if !reports.is_empty() => {
                    self.add(FindingKind::NotReported, Some(number), None, format!("{uri} was not reported"));
                }
                _ => {}
            }
        }
        contexts
    }

    /// Whether each piece that was reported is in the playlist, with none left out between them.
    pub(super) fn of_reports(&mut self, playlist: &Playlist, reports: &Reports<'_>) {
        let first = playlist.media_sequence;
        let listed = first..first.saturating_add(playlist.segments.len() as u64);
        for (number, (event, reported)) in reports {
            if !reported.complete {
                let message = format!("segment {number} was given up");
                self.add(FindingKind::GivenUp, Some(*number), Some(*event), message);
            } else if *number >= listed.end {
                let message = format!("segment {number} was reported and is not in the playlist");
                self.add(FindingKind::NotInPlaylist, Some(*number), Some(*event), message);
            }
        }
        // Numbers before the first one of a sliding window are over; between reports none may be left out.
        let last = reports.keys().next_back().copied().unwrap_or_default().max(listed.end.saturating_sub(1));
        if let Some(start) = reports.keys().next() {
            let absent = (*start.max(&first)..=last).filter(|number| !reports.contains_key(number));
            for number in absent.filter(|number| !listed.contains(number)).take(GAP_LIMIT) {
                let message = format!("segment {number} was neither reported nor written, and a later one was");
                self.add(FindingKind::NotInPlaylist, Some(number), None, message);
            }
        }
    }

    /// Whether there is a message for each data key that was issued. Only where files are messages of ours can it be told
    /// which key wrote which. The same context may be asked for again after a lost answer: that is still one message.
    pub(super) fn of_data_keys(&mut self, issued: &[(Sequence, Option<Digest>)], contexts: &BTreeSet<Digest>) {
        let mut seen = BTreeSet::new();
        for (event, context) in issued {
            let Some(context) = context.filter(|context| seen.insert(*context)) else { continue };
            if !contexts.contains(&context) {
                let message = "a data key was issued, and the message that it was for is not there".to_owned();
                self.add(FindingKind::NeverWritten, None, Some(*event), message);
            }
        }
    }

    /// Whether there is a segment for each media key: a packager asks for the key of a period when it begins to write a
    /// segment in it.
    pub(super) fn of_periods(&mut self, playlist: &Playlist, given: &BTreeMap<u64, Sequence>) {
        let written: BTreeSet<u64> = playlist.segments.iter().filter_map(PlaylistSegment::period).collect();
        let Some(oldest) = written.first() else { return };
        for (period, event) in given.range(oldest..).filter(|(period, _)| !written.contains(period)) {
            let message = format!("the media key of period {period} was given out, and no segment is under it");
            self.add(FindingKind::NeverWritten, None, Some(*event), message);
        }
    }

    /// Whether the playlist has an end, and is as long as it should be.
    pub(super) fn of_size(&mut self, playlist: &Playlist, expected: &Expected) {
        if !playlist.ended {
            self.add(FindingKind::Unfinished, None, None, "the playlist does not say that it is complete".into());
        }
        let count = playlist.segments.len() as u64;
        if let Some(wanted) = expected.segments.filter(|wanted| *wanted > count) {
            let message = format!("{count} segments where there should be {wanted}");
            self.add(FindingKind::TooShort, None, None, message);
        }
        let longest = playlist.segments.iter().map(|segment| segment.duration).fold(0.0, f64::max);
        if let Some(wanted) = expected.duration.filter(|wanted| playlist.duration() + longest < *wanted) {
            let message = format!("{:.1} s where there should be {wanted:.1} s", playlist.duration());
            self.add(FindingKind::TooShort, None, None, message);
        }
    }

    fn add(&mut self, kind: FindingKind, segment: Option<u64>, event: Option<Sequence>, message: String) {
        self.found.push(Finding { kind, segment, event, message });
    }
}
