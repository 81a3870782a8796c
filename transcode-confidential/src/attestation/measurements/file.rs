//! The measurements file: how it is read, with everything that is wrong with it, and written.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    ExpectedImage, Measurements,
    problem::{Finding, MeasurementsError, Problem},
};
use crate::{
    attestation::pcr::{PcrIndex, PcrValue, Pcrs},
    time::Timestamp,
};

pub(super) const FORMAT: &str = "transcode-confidential/measurements/v1";
pub(super) const MAX_LABEL: usize = 128;
pub(super) const MAX_IMAGES: usize = 64;

/// Reads a file, or says everything that is wrong with it.
pub(super) fn read(json: &[u8]) -> Result<Measurements, MeasurementsError> {
    let file: RawFile = serde_json::from_slice(json).map_err(|error| {
        let nitro_cli =
            serde_json::from_slice::<serde_json::Value>(json).is_ok_and(|v| v.get("Measurements").is_some());
        MeasurementsError::of_file(if nitro_cli { Problem::NitroCliOutput } else { Problem::Shape(error.to_string()) })
    })?;
    if file.format != FORMAT {
        return Err(MeasurementsError::of_file(Problem::Format { found: file.format }));
    }
    match file.images.len() {
        0 => return Err(MeasurementsError::of_file(Problem::NoImages)),
        1..=MAX_IMAGES => {}
        found => return Err(MeasurementsError::of_file(Problem::TooManyImages { found })),
    }
    let mut images: Vec<ExpectedImage> = Vec::new();
    let mut findings = Vec::new();
    for (index, raw) in file.images.into_iter().enumerate() {
        let place = format!("image {} ({:?})", index + 1, raw.label);
        let (image, mut problems) = raw.read();
        if images.iter().any(|earlier| earlier.label == image.label) {
            problems.push(Problem::LabelRepeated);
        }
        images.push(image);
        findings.extend(problems.into_iter().map(|problem| Finding { image: Some(place.clone()), problem }));
    }
    if findings.is_empty() { Ok(Measurements { images }) } else { Err(MeasurementsError { findings }) }
}

/// Writes a file that [`read`] accepts.
pub(super) fn write(measurements: &Measurements) -> String {
    let images = measurements.images.iter().map(|image| WrittenImage {
        label: &image.label,
        not_after: image.not_after.map(|time| time.to_string()),
        pcrs: &image.pcrs,
    });
    let file = WrittenFile { format: FORMAT, images: images.collect() };
    serde_json::to_string_pretty(&file).unwrap_or_default()
}

/// What is wrong with an image whose registers are digests already.
pub(super) fn problems_of(image: &ExpectedImage) -> Vec<Problem> {
    let mut problems = Vec::new();
    let label_fits = (1..=MAX_LABEL).contains(&image.label.len());
    if !label_fits || !image.label.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        problems.push(Problem::Label);
    }
    for index in PcrIndex::OF_IMAGE {
        if image.pcrs.get(index).is_none() {
            problems.push(Problem::Missing(index));
        }
    }
    for (index, value) in image.pcrs.iter() {
        match index {
            PcrIndex::PARENT_INSTANCE => problems.push(Problem::Instance),
            _ if !is_listable(index) => problems.push(Problem::Undefined(index)),
            _ if value.is_zero() => problems.push(Problem::Zero(index)),
            _ => {}
        }
    }
    problems
}

fn is_listable(index: PcrIndex) -> bool {
    PcrIndex::OF_IMAGE.contains(&index)
        || matches!(index, PcrIndex::PARENT_ROLE | PcrIndex::IMAGE_SIGNER)
        || index >= PcrIndex::FIRST_OWN
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    format: String,
    images: Vec<RawImage>,
    /// How the image was built: of interest to people, not to a verifier.
    #[serde(default, rename = "build")]
    _build: Option<serde::de::IgnoredAny>,
}

/// An image as it is written in files, JSON or TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawImage {
    label: String,
    #[serde(default)]
    not_after: Option<String>,
    #[serde(deserialize_with = "pairs")]
    pcrs: Vec<(String, String)>,
}

impl RawImage {
    /// The image as far as it can be read, and all its problems.
    fn read(self) -> (ExpectedImage, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut pcrs = Pcrs::default();
        let mut unreadable = Vec::new();
        for (key, text) in self.pcrs {
            let Some(index) = parse_index(&key) else {
                problems.push(Problem::Index { found: key.chars().take(32).collect() });
                continue;
            };
            if pcrs.get(index).is_some() || unreadable.contains(&index) {
                problems.push(Problem::Repeated(index));
            }
            match text.parse::<PcrValue>() {
                Ok(value) => pcrs.insert(index, value),
                Err(_) => {
                    problems.push(Problem::Value(index));
                    unreadable.push(index);
                }
            }
        }
        let not_after = self.not_after.and_then(|text| match text.parse::<Timestamp>() {
            Ok(time) => Some(time),
            Err(_) => {
                problems.push(Problem::NotAfter { found: text.chars().take(64).collect() });
                None
            }
        });
        let image = ExpectedImage { label: self.label, not_after, pcrs };
        let of_values = problems_of(&image).into_iter();
        problems.extend(of_values.filter(|p| !matches!(p, Problem::Missing(index) if unreadable.contains(index))));
        (image, problems)
    }
}

impl TryFrom<RawImage> for ExpectedImage {
    type Error = MeasurementsError;

    fn try_from(raw: RawImage) -> Result<Self, MeasurementsError> {
        let (image, problems) = raw.read();
        if problems.is_empty() { Ok(image) } else { Err(MeasurementsError::of_image(&image.label, problems)) }
    }
}

#[derive(Serialize)]
struct WrittenFile<'a> {
    format: &'a str,
    images: Vec<WrittenImage<'a>>,
}

#[derive(Serialize)]
struct WrittenImage<'a> {
    label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
    pcrs: &'a Pcrs,
}

/// `0` to `31`, in the one form that a number has.
fn parse_index(key: &str) -> Option<PcrIndex> {
    let index = key.parse::<u8>().ok().and_then(PcrIndex::new)?;
    (index.get().to_string() == key).then_some(index)
}

/// A map with its repetitions, which a map type would swallow.
fn pairs<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    struct Pairs;

    impl<'de> serde::de::Visitor<'de> for Pairs {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map from register numbers to hexadecimal digests")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }

    deserializer.deserialize_map(Pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digit: char) -> String {
        digit.to_string().repeat(96)
    }

    fn file_with(pcrs: &str) -> String {
        format!(r#"{{"format":"{FORMAT}","images":[{{"label":"new","pcrs":{{{pcrs}}}}}]}}"#)
    }

    fn good_pcrs() -> String {
        format!(r#""0":"{}","1":"{}","2":"{}""#, digest('a'), digest('B'), digest('c'))
    }

    fn problems(json: &str) -> Vec<Problem> {
        read(json.as_bytes()).expect_err(json).findings.into_iter().map(|finding| finding.problem).collect()
    }

    fn index(number: u8) -> PcrIndex {
        PcrIndex::new(number).unwrap()
    }

    #[test]
    fn the_file_of_the_image_build_is_read_and_written_again() {
        let json = format!(
            r#"{{"format":"{FORMAT}","build":{{"tool":["x"]}},"images":[
                {{"label":"1.0","not_after":"2026-12-31T00:00:00+01:00","pcrs":{{{}}}}},
                {{"label":"1.1","pcrs":{{{},"8":"{}","31":"{}"}}}}]}}"#,
            good_pcrs(),
            good_pcrs(),
            digest('d'),
            digest('e'),
        );
        let measurements = read(json.as_bytes()).unwrap();
        assert_eq!(measurements.images().len(), 2);
        assert_eq!(measurements.images()[0].not_after().unwrap().to_string(), "2026-12-30T23:00:00.000Z");
        assert_eq!(measurements.images()[1].pcrs().get(index(8)).unwrap().to_string(), digest('d'));
        assert_eq!(read(measurements.to_json().as_bytes()), Ok(measurements));
    }

    #[test]
    fn every_mistake_is_named_with_its_register() {
        let good = good_pcrs();
        let with = |more: &str| file_with(&format!("{good},{more}"));
        let some = digest('d');
        assert_eq!(problems(&with(&format!(r#""4":"{some}""#))), [Problem::Instance]);
        assert_eq!(problems(&with(&format!(r#""5":"{some}""#))), [Problem::Undefined(index(5))]);
        assert_eq!(problems(&with(&format!(r#""15":"{some}""#))), [Problem::Undefined(index(15))]);
        assert_eq!(problems(&with(&format!(r#""3":"{}""#, digest('0')))), [Problem::Zero(index(3))]);
        assert_eq!(problems(&with(&format!(r#""0":"{some}""#))), [Problem::Repeated(index(0))]);
        for bad in ["32", "-1", "00", "PCR0", "+3", ""] {
            let found = bad.to_owned();
            assert_eq!(problems(&with(&format!(r#""{bad}":"{some}""#))), [Problem::Index { found }]);
        }
        let only_role_and_signer = format!(r#""3":"{some}","8":"{some}""#);
        assert_eq!(problems(&file_with(&only_role_and_signer)), PcrIndex::OF_IMAGE.map(Problem::Missing));
        let short = format!(r#""0":"{}","1":"{some}","2":"xy""#, digest('0'));
        assert_eq!(problems(&file_with(&short)), [Problem::Value(index(2)), Problem::Zero(index(0))]);
    }

    #[test]
    fn all_findings_are_reported_at_once_with_their_image() {
        let json = format!(
            r#"{{"format":"{FORMAT}","images":[{{"label":"a","not_after":"soon","pcrs":{{{0}}}}},{{"label":"a","pcrs":{{}}}}]}}"#,
            good_pcrs()
        );
        let text = read(json.as_bytes()).unwrap_err().to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(lines[0].starts_with(r#"image 1 ("a"): not_after is "soon""#), "{text}");
        assert!(lines[1].starts_with(r#"image 2 ("a"): PCR0 is missing"#), "{text}");
        assert!(lines[4].starts_with(r#"image 2 ("a"): another image has the same label"#), "{text}");
    }

    #[test]
    fn files_of_another_kind_are_recognised() {
        let nitro_cli =
            format!(r#"{{"Measurements":{{"HashAlgorithm":"Sha384 {{ ... }}","PCR0":"{}"}}}}"#, digest('a'));
        assert_eq!(problems(&nitro_cli), [Problem::NitroCliOutput]);
        assert!(Problem::NitroCliOutput.to_string().contains(r#"{"format": "transcode-confidential/measurements/v1""#));
        let future = file_with(&good_pcrs()).replace("/v1", "/v2");
        assert_eq!(problems(&future), [Problem::Format { found: FORMAT.replace("/v1", "/v2") }]);
        let empty = format!(r#"{{"format":"{FORMAT}","images":[]}}"#);
        assert_eq!(problems(&empty), [Problem::NoImages]);
        for other in ["", "[]", "{}", "null", &file_with(&good_pcrs()).replace("label", "lable")] {
            assert!(matches!(problems(other).as_slice(), [Problem::Shape(_)]), "{other}");
        }
    }

    #[test]
    fn a_label_that_would_garble_a_terminal_is_refused() {
        for label in ["", "a\u{1b}[2J", "naïve", &"x".repeat(129)] {
            let json = file_with(&good_pcrs()).replace(r#""new""#, &serde_json::to_string(label).unwrap());
            assert_eq!(problems(&json), [Problem::Label], "{label:?}");
        }
    }
}
