//! What the enclave tells of itself in figures: public values only.
//!
//! Everything that can be told is in one [`CATALOGUE`] that is compiled into both ends: names, help, labels and each value
//! that a label can have. On the wire there are only positions in it and numbers, so nothing that a caller chose (a key, a
//! principal, the name of a content) can get out this way, and nothing that the parent or the enclave sends can put a name
//! or a label of its own into what Prometheus reads.
//!
//! A report is the CBOR array `[fingerprint, [[family, series, [value, ...]], ...]]`: `fingerprint` the first 8 bytes of
//! SHA-256 over the catalogue's text, families and series by their position, ascending; series whose values are all zero
//! are left out. A counter or gauge has one value. A histogram has, for each of [`BOUNDS`] and for what is above, the number
//! of observations in that bucket alone, then their sum in microseconds.

mod catalogue;
mod exposition;

pub use catalogue::{CATALOGUE, CLOSED, Metric, OTHER};

use thiserror::Error;

use crate::{
    cbor::{CborError, Reader, Writer},
    ids::Digest,
};

/// What every name begins with.
pub const PREFIX: &str = "transcode_enclave_";
/// Upper bounds of every histogram, in microseconds.
pub const BOUNDS: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
];
/// Greatest length of a report, in bytes.
pub const REPORT_LIMIT: usize = 128 * 1024;
/// Greatest number of series in a report.
pub const SERIES_LIMIT: usize = 4096;

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Only grows, from 0 at boot.
    Counter,
    /// Comes and goes; the value on the wire is so many times the value that is shown.
    Gauge {
        /// 1 for a count, 1,000 for seconds that are told in milliseconds.
        per: u64,
    },
    /// How long something took.
    Histogram,
}

/// A label, and every value that it can have.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: &'static [&'static str],
}

/// A metric with all its series: one for each combination of label values.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name, after [`PREFIX`].
    pub name: &'static str,
    /// What it says, one sentence.
    pub help: &'static str,
    /// What kind of number it is.
    pub shape: Shape,
    /// Its labels.
    pub labels: &'static [Label],
}

impl Family {
    /// Number of series.
    pub fn series(&self) -> usize {
        self.labels.iter().map(|label| label.values.len()).product()
    }

    /// Numbers of one series.
    pub const fn width(&self) -> usize {
        match self.shape {
            Shape::Counter | Shape::Gauge { .. } => 1,
            Shape::Histogram => BOUNDS.len() + 2,
        }
    }

    /// The series with these label values, in the order of the labels. A value that the catalogue does not have counts as
    /// [`OTHER`], or as the last one where there is no such.
    pub fn position(&self, values: &[&str]) -> usize {
        self.labels.iter().enumerate().fold(0, |position, (index, label)| {
            let find = |wanted: &str| label.values.iter().position(|value| *value == wanted);
            let found = values.get(index).and_then(|value| find(value)).or_else(|| find(OTHER));
            position * label.values.len() + found.unwrap_or(label.values.len().saturating_sub(1))
        })
    }
}

/// One series, with at least one number that is not zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// Position of its family in the [`CATALOGUE`].
    pub family: usize,
    /// Its position among the series of the family.
    pub position: usize,
    /// Its numbers, [`Family::width`] of them.
    pub values: Vec<u64>,
}

/// All figures at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report(Vec<Series>);

/// Why bytes are no report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// They are not of the form.
    #[error("malformed: {0}")]
    Cbor(#[from] CborError),
    /// They were made by another version, whose positions mean something else.
    #[error("another version's catalogue")]
    Catalogue,
    /// They say something in other than its one way.
    #[error("series are out of order, unknown, or of zeros alone")]
    Series,
}

/// Names the catalogue on the wire: positions mean something only within the same one.
pub fn fingerprint() -> [u8; 8] {
    let mut text = String::new();
    for family in CATALOGUE {
        use std::fmt::Write as _;
        // Writing to a String does not fail.
        let _ = write!(text, "{} {:?}", family.name, family.shape);
        for label in family.labels {
            let _ = write!(text, " {}={}", label.name, label.values.join("|"));
        }
        text.push('\n');
    }
    let digest = Digest::of(text.as_bytes());
    let mut first = [0; 8];
    first.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    first
}

impl Report {
    /// Takes series in any order; leaves out those of zeros alone.
    pub fn new(mut series: Vec<Series>) -> Self {
        series.retain(|series| series.values.iter().any(|value| *value != 0));
        series.sort_by_key(|series| (series.family, series.position));
        Self(series)
    }

    /// The series, ascending.
    pub fn series(&self) -> &[Series] {
        &self.0
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.array(2).bytes(&fingerprint()).array(self.0.len());
        for series in &self.0 {
            out.array(3).uint(series.family as u64).uint(series.position as u64).array(series.values.len());
            for value in &series.values {
                out.uint(*value);
            }
        }
        out.into_bytes()
    }

    /// Reads a report. What is accepted encodes to the same bytes.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ReportError> {
        if bytes.len() > REPORT_LIMIT {
            return Err(CborError::TooLong.into());
        }
        let mut reader = Reader::new(bytes);
        exactly(reader.array(2)?, 2)?;
        if reader.array_of::<8>()? != fingerprint() {
            return Err(ReportError::Catalogue);
        }
        let mut all: Vec<Series> = Vec::new();
        for _ in 0..reader.array(SERIES_LIMIT)? {
            exactly(reader.array(3)?, 3)?;
            let (family, position): (usize, usize) = (reader.number()?, reader.number()?);
            let known = CATALOGUE.get(family).filter(|known| position < known.series()).ok_or(ReportError::Series)?;
            exactly(reader.array(known.width())?, known.width())?;
            let values = (0..known.width()).map(|_| reader.uint()).collect::<Result<Vec<u64>, CborError>>()?;
            let follows = all.last().is_none_or(|last| (last.family, last.position) < (family, position));
            if !follows || values.iter().all(|value| *value == 0) {
                return Err(ReportError::Series);
            }
            all.push(Series { family, position, values });
        }
        reader.end()?;
        Ok(Self(all))
    }
}

const fn exactly(found: usize, expected: usize) -> Result<(), CborError> {
    if found == expected { Ok(()) } else { Err(CborError::Range) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::api::ErrorCode;

    fn any_report() -> impl Strategy<Value = Report> {
        let series = (0..CATALOGUE.len(), any::<prop::sample::Index>(), proptest::collection::vec(0..3_u64, 16));
        proptest::collection::vec(series, 0..40).prop_map(|all| {
            let mut seen = BTreeSet::new();
            let series = all.into_iter().filter_map(|(family, at, mut values)| {
                let known = &CATALOGUE[family];
                let position = at.index(known.series());
                values.truncate(known.width());
                seen.insert((family, position)).then_some(Series { family, position, values })
            });
            Report::new(series.collect())
        })
    }

    #[test]
    fn names_are_those_of_prometheus_and_each_is_there_once() {
        let mut seen = BTreeSet::new();
        for family in CATALOGUE {
            assert!(
                family.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{family:?}"
            );
            assert!(seen.insert(family.name), "{family:?}");
            assert_eq!(family.name.ends_with("_total"), family.shape == Shape::Counter, "{family:?}");
            assert!(family.shape != Shape::Histogram || family.name.ends_with("_seconds"), "{family:?}");
            assert!(family.help.ends_with('.') && !family.help.contains('\n'), "{family:?}");
            for label in family.labels {
                assert!(label.values.iter().collect::<BTreeSet<_>>().len() == label.values.len(), "{label:?}");
                assert!(label.values.iter().all(|value| !value.contains(['"', '\\', '\n'])), "{label:?}");
            }
        }
    }

    #[test]
    fn a_report_of_everything_stays_within_the_limits() {
        let full = |(family, known): (usize, &Family)| {
            let values = vec![u64::MAX; known.width()];
            (0..known.series())
                .map(move |position| Series { family, position, values: values.clone() })
                .collect::<Vec<_>>()
        };
        let report = Report::new(CATALOGUE.iter().enumerate().flat_map(full).collect());
        assert!(report.series().len() <= SERIES_LIMIT, "{}", report.series().len());
        let bytes = report.encode();
        assert!(bytes.len() <= REPORT_LIMIT, "{}", bytes.len());
        assert_eq!(Report::decode(&bytes), Ok(report));
    }

    #[test]
    fn every_code_of_the_api_has_a_label_of_its_own() {
        // serde's own list of what it would have accepted.
        let error = serde_json::from_str::<ErrorCode>("\"?\"").unwrap_err().to_string();
        let codes: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(codes.len() >= 16 && codes.contains(&"AUDIT_UNAVAILABLE"), "{codes:?}");
        let label = CATALOGUE[Metric::Requests as usize].labels[1];
        for code in codes {
            assert!(label.values.contains(&code), "{code} is missing among the codes of the catalogue");
        }
    }

    #[test]
    fn what_the_catalogue_does_not_have_is_counted_as_other() {
        let requests = &CATALOGUE[Metric::Requests as usize];
        let other = requests.position(&[OTHER, OTHER]);
        assert_eq!(requests.position(&["GET /v1/keys/film-7", "film-7"]), other);
        assert_eq!(requests.position(&[]), other);
        assert_ne!(requests.position(&["GET /v1/keys", "OK"]), other);
        assert_eq!(CATALOGUE[Metric::LogPlaced as usize].position(&["whatever"]), 0);
    }

    #[test]
    fn a_report_of_another_catalogue_is_refused_as_such() {
        let mut bytes = Report::default().encode();
        assert_eq!(Report::decode(&bytes), Ok(Report::default()));
        bytes[2] ^= 1;
        assert_eq!(Report::decode(&bytes), Err(ReportError::Catalogue));
    }

    #[test]
    fn series_out_of_order_unknown_or_empty_are_refused() {
        let encoded = |series: Vec<(u64, u64, Vec<u64>)>| {
            let mut out = Writer::new();
            out.array(2).bytes(&fingerprint()).array(series.len());
            for (family, position, values) in series {
                out.array(3).uint(family).uint(position).array(values.len());
                for value in values {
                    out.uint(value);
                }
            }
            Report::decode(&out.into_bytes())
        };
        let gauge = Metric::LogPlaced as u64;
        assert!(encoded(vec![(gauge, 0, vec![1])]).is_ok());
        for wrong in [
            vec![(gauge, 0, vec![0])],
            vec![(gauge, 1, vec![1])],
            vec![(CATALOGUE.len() as u64, 0, vec![1])],
            vec![(gauge, 0, vec![1]), (gauge, 0, vec![1])],
            vec![(gauge + 1, 0, vec![1]), (gauge, 0, vec![1])],
        ] {
            assert_eq!(encoded(wrong.clone()), Err(ReportError::Series), "{wrong:?}");
        }
        assert_eq!(encoded(vec![(gauge, 0, vec![])]), Err(ReportError::Cbor(CborError::Range)));
        assert_eq!(encoded(vec![(gauge, 0, vec![1, 2])]), Err(ReportError::Cbor(CborError::TooLong)));
    }

    proptest! {
        #[test]
        fn a_report_survives_its_bytes_and_no_prefix_of_it_is_one(report in any_report()) {
            let bytes = report.encode();
            prop_assert_eq!(Report::decode(&bytes), Ok(report));
            for end in 0..bytes.len() {
                prop_assert!(Report::decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn what_is_accepted_encodes_to_the_same_bytes(report in any_report(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = report.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(report) = Report::decode(&bytes) {
                prop_assert_eq!(report.encode(), bytes);
            }
        }
    }
}
