use std::collections::BTreeMap;

use crate::ids::{Digest, KeyVersion, MediaContent, Period};

/// Which version of a key the media key of each period was first derived from. A period keeps its version for ever: what was
/// encrypted in it would not play otherwise.
///
/// Exact, and of bounded size: neighbouring periods of one version are one run, a content is known by the digest of its name,
/// and [`MediaPeriods::LIMIT`] runs are the most that a key has. There is one way only to write down a given state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MediaPeriods {
    /// By content: runs that are ascending, do not overlap, and cannot be merged.
    contents: BTreeMap<Digest, Vec<PeriodRun>>,
    runs: usize,
}

/// Periods of one content that follow on each other and whose media keys come from one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeriodRun {
    /// The first of them.
    pub first: Period,
    /// The last of them.
    pub last: Period,
    /// The version.
    pub version: KeyVersion,
}

impl MediaPeriods {
    /// Most runs of a key, of all contents together. A packager that takes its periods in order makes one for each version
    /// and content.
    pub const LIMIT: usize = 16_384;

    /// The version that a period's media key comes from; `None` where none was ever derived.
    pub fn version(&self, content: &MediaContent, period: Period) -> Option<KeyVersion> {
        let runs = self.contents.get(&name(content))?;
        let at = runs.partition_point(|run| run.last < period);
        runs.get(at).filter(|run| run.first <= period).map(|run| run.version)
    }

    /// Whether a new period still fits.
    pub fn has_room(&self, content: &MediaContent, period: Period, version: KeyVersion) -> bool {
        self.runs < Self::LIMIT || self.contents.get(&name(content)).is_some_and(|runs| touches(runs, period, version))
    }

    /// Notes where a period's media key comes from. `false` where it is noted already that it comes from another version.
    pub(super) fn pin(&mut self, content: &MediaContent, period: Period, version: KeyVersion) -> bool {
        if let Some(pinned) = self.version(content, period) {
            return pinned == version;
        }
        let runs = self.contents.entry(name(content)).or_default();
        let before = runs.len();
        let at = runs.partition_point(|run| run.last < period);
        runs.insert(at, PeriodRun { first: period, last: period, version });
        merge(runs, at);
        if let Some(at) = at.checked_sub(1) {
            merge(runs, at);
        }
        self.runs = self.runs + runs.len() - before;
        true
    }

    /// Every run with the digest of its content's name, in the order in which a snapshot has them.
    pub fn iter(&self) -> impl Iterator<Item = (Digest, PeriodRun)> {
        self.contents.iter().flat_map(|(content, runs)| runs.iter().map(|run| (*content, *run)))
    }

    /// Number of runs.
    pub const fn len(&self) -> usize {
        self.runs
    }

    /// Whether no media key was ever derived.
    pub const fn is_empty(&self) -> bool {
        self.runs == 0
    }

    /// Adds a run behind all others, as a snapshot lists them. `false` where it does not follow on them, or could have been
    /// merged: no genuine snapshot has it.
    pub fn push(&mut self, content: Digest, run: PeriodRun) -> bool {
        let newest = self.contents.last_key_value();
        let follows = match newest {
            Some((last, runs)) if *last == content => runs.last().is_some_and(|last| {
                let gap = last.last.next().is_some_and(|next| next < run.first);
                last.last < run.first && (gap || last.version != run.version)
            }),
            Some((last, _)) => *last < content,
            None => true,
        };
        let sound = follows && run.first <= run.last;
        if sound {
            self.contents.entry(content).or_default().push(run);
            self.runs += 1;
        }
        sound
    }
}

fn name(content: &MediaContent) -> Digest {
    Digest::of(content.as_str().as_bytes())
}

/// Whether a period would become part of a run that is there.
fn touches(runs: &[PeriodRun], period: Period, version: KeyVersion) -> bool {
    runs.iter()
        .any(|run| run.version == version && (run.last.next() == Some(period) || period.next() == Some(run.first)))
}

/// Makes one run of `at` and the one behind it, where they belong together.
fn merge(runs: &mut Vec<PeriodRun>, at: usize) {
    let (Some(this), Some(behind)) = (runs.get(at).copied(), runs.get(at + 1).copied()) else { return };
    if this.version == behind.version && this.last.next() == Some(behind.first) {
        runs.remove(at + 1);
        if let Some(run) = runs.get_mut(at) {
            run.last = behind.last;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn content(name: u8) -> MediaContent {
        format!("reel-{name}").parse().unwrap()
    }

    proptest! {
        #[test]
        fn it_is_a_map_that_keeps_what_was_first_noted_and_has_one_form(
            notes in prop::collection::vec((0..3_u8, 0..40_u64, 1..4_u32), 0..200),
        ) {
            let (mut periods, mut simple) = (MediaPeriods::default(), BTreeMap::new());
            for (name, period, version) in notes {
                let pinned = *simple.entry((name, period)).or_insert(version);
                prop_assert_eq!(periods.pin(&content(name), Period(period), KeyVersion(version)), pinned == version);
            }
            for name in 0..3 {
                for period in 0..40 {
                    let expected = simple.get(&(name, period)).copied().map(KeyVersion);
                    prop_assert_eq!(periods.version(&content(name), Period(period)), expected);
                }
            }
            // Noted in another order, it is the same.
            let mut again = MediaPeriods::default();
            for ((name, period), version) in simple.into_iter().rev() {
                prop_assert!(again.pin(&content(name), Period(period), KeyVersion(version)));
            }
            prop_assert_eq!(&again, &periods);
            prop_assert_eq!(periods.iter().count(), periods.len());
            // And so it is when it is read from a list.
            let mut read = MediaPeriods::default();
            for (content, run) in periods.iter() {
                prop_assert!(read.push(content, run));
                prop_assert!(!read.clone().push(content, run), "not twice");
            }
            prop_assert_eq!(read, periods);
        }
    }

    #[test]
    fn periods_in_order_cost_one_run_for_each_version() {
        let mut periods = MediaPeriods::default();
        for period in 0..100_000 {
            let version = KeyVersion(1 + u32::try_from(period / 40_000).unwrap());
            assert!(periods.pin(&content(0), Period(period), version));
        }
        assert_eq!(periods.len(), 3);
    }

    #[test]
    fn what_could_be_merged_or_is_out_of_order_is_no_snapshot() {
        let run =
            |first, last, version| PeriodRun { first: Period(first), last: Period(last), version: KeyVersion(version) };
        let mut periods = MediaPeriods::default();
        assert!(!periods.push(Digest::new([1; 32]), run(3, 2, 1)));
        assert!(periods.push(Digest::new([1; 32]), run(3, 4, 1)));
        for wrong in [run(5, 6, 1), run(4, 6, 2), run(0, 1, 1), run(3, 4, 1)] {
            assert!(!periods.push(Digest::new([1; 32]), wrong), "{wrong:?}");
        }
        assert!(!periods.push(Digest::new([0; 32]), run(0, 0, 1)));
        assert!(periods.push(Digest::new([1; 32]), run(5, 6, 2)));
        assert!(periods.push(Digest::new([2; 32]), run(u64::MAX, u64::MAX, 1)));
    }

    #[test]
    fn a_full_table_takes_only_what_makes_it_no_larger() {
        let mut periods = MediaPeriods::default();
        for period in 0..MediaPeriods::LIMIT as u64 {
            assert!(periods.has_room(&content(0), Period(2 * period), KeyVersion(1)));
            periods.pin(&content(0), Period(2 * period), KeyVersion(1));
        }
        assert!(!periods.has_room(&content(0), Period(u64::MAX), KeyVersion(1)));
        assert!(!periods.has_room(&content(1), Period(0), KeyVersion(1)));
        assert!(!periods.has_room(&content(0), Period(1), KeyVersion(2)));
        assert!(periods.has_room(&content(0), Period(1), KeyVersion(1)));
    }
}
