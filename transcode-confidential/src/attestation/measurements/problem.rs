//! What can be wrong with measurements, each with what to do about it.

use std::fmt;

use thiserror::Error;

use super::file::{FORMAT, MAX_IMAGES, MAX_LABEL};
use crate::attestation::pcr::PcrIndex;

/// All that is wrong with some measurements, one finding a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasurementsError {
    /// At least one, in the order of the file.
    pub findings: Vec<Finding>,
}

/// One problem and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The image, where it is one image's problem: `image 2 ("1.1")`.
    pub image: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with measurements. Each text ends with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// Not JSON, or of another shape.
    #[error("this is not a measurements file: {0}; use the measurements.json that the image build wrote")]
    Shape(String),
    /// What `nitro-cli build-enclave` prints.
    #[error(
        "this is the output of nitro-cli; copy its PCR0, PCR1 and PCR2 into \
         {{\"format\": \"{FORMAT}\", \"images\": [{{\"label\": \"...\", \"pcrs\": {{\"0\": \"...\", \"1\": \"...\", \"2\": \"...\"}}}}]}}"
    )]
    NitroCliOutput,
    /// A format of another name or version.
    #[error(
        "the format is {found:?}, this version reads {FORMAT:?}; use the tool's version that the image was built with"
    )]
    Format {
        /// What the file says.
        found: String,
    },
    /// No image at all.
    #[error("there is no image, so nothing could be accepted; list at least one")]
    NoImages,
    /// More images than anyone upgrades between.
    #[error("there are {found} images, at most {MAX_IMAGES} are read; remove those that no longer run")]
    TooManyImages {
        /// Their number.
        found: usize,
    },
    /// A label that would not print.
    #[error("the label must have 1 to {MAX_LABEL} printable ASCII characters; it is shown in every report")]
    Label,
    /// A label that another image has.
    #[error("another image has the same label; reports could not tell them apart, so give each its own")]
    LabelRepeated,
    /// A time that is not RFC 3339.
    #[error("not_after is {found:?}; write a time as 2026-01-31T12:00:00Z or leave it out")]
    NotAfter {
        /// What the file says.
        found: String,
    },
    /// One of the registers without which no image is identified is missing.
    #[error(
        "{0} is missing; PCR0, PCR1 and PCR2 together identify an image, the others never do: copy it from the image build"
    )]
    Missing(PcrIndex),
    /// A register that debug mode or nothing at all was measured into.
    #[error(
        "{0} is all zeros, as in debug mode, where the host reads everything; copy the value of the image build, or leave the register out where it is optional"
    )]
    Zero(PcrIndex),
    /// A value that is no SHA-384 digest.
    #[error("{0} is not 96 hexadecimal digits; copy the value of the image build whole")]
    Value(PcrIndex),
    /// A register that occurs twice in one image.
    #[error("{0} is listed twice; keep the right one, and give a second image an entry of its own")]
    Repeated(PcrIndex),
    /// PCR4, which is different on every instance.
    #[error("PCR4 is the id of one instance and says nothing of the image; remove it")]
    Instance,
    /// A register that nothing is measured into.
    #[error("{0} has no defined meaning; only 0, 1, 2, 3, 8 and 16 to 31 may be listed: remove it")]
    Undefined(PcrIndex),
    /// A key that is no register.
    #[error("{found:?} is no register; write the number alone, 0 to 31, without leading zeros")]
    Index {
        /// What the file says.
        found: String,
    },
}

impl MeasurementsError {
    pub(super) fn of_image(label: &str, problems: Vec<Problem>) -> Self {
        let image = Some(format!("image {label:?}"));
        Self { findings: problems.into_iter().map(|problem| Finding { image: image.clone(), problem }).collect() }
    }

    pub(super) fn of_file(problem: Problem) -> Self {
        Self { findings: vec![Finding { image: None, problem }] }
    }
}

impl std::error::Error for MeasurementsError {}

impl fmt::Display for MeasurementsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{finding}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.image {
            Some(image) => write!(f, "{image}: {}", self.problem),
            None => self.problem.fmt(f),
        }
    }
}
