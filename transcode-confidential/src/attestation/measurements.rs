//! Which images a verifier accepts.

mod file;
mod problem;

use std::fmt;

use thiserror::Error;

pub use problem::{Finding, MeasurementsError, Problem};

use super::{
    pcr::{PcrIndex, PcrValue, Pcrs},
    refusal::{Refusal, UnexpectedImage},
};
use crate::time::Timestamp;

/// One image that is accepted: PCR0, PCR1 and PCR2 always, others where listed; none of them zero.
///
/// PCR3 (role) and PCR8 (signing certificate) may narrow an image, never stand for one; PCR4 (instance) may not be
/// listed at all.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "file::RawImage")]
pub struct ExpectedImage {
    label: String,
    not_after: Option<Timestamp>,
    pcrs: Pcrs,
}

impl ExpectedImage {
    /// An image by its registers, accepted until `not_after` where that is given. All findings are reported at once.
    ///
    /// # Errors
    /// [`MeasurementsError`] with every register that cannot be accepted.
    pub fn new(label: &str, not_after: Option<Timestamp>, pcrs: Pcrs) -> Result<Self, MeasurementsError> {
        let image = Self { label: label.to_owned(), not_after, pcrs };
        let problems = file::problems_of(&image);
        if problems.is_empty() { Ok(image) } else { Err(MeasurementsError::of_image(label, problems)) }
    }

    /// The same registers as in a document or in this enclave, as far as they identify the image: PCR0 to PCR2.
    ///
    /// # Errors
    /// [`MeasurementsError`], where PCR0 to PCR2 are missing or zero.
    pub fn same_as(label: &str, pcrs: &Pcrs) -> Result<Self, MeasurementsError> {
        let identifying = pcrs.iter().filter(|(index, _)| PcrIndex::OF_IMAGE.contains(index));
        Self::new(label, None, identifying.map(|(index, value)| (index, *value)).collect())
    }

    /// How the image is called in reports.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Until when it is accepted, where that is limited.
    pub const fn not_after(&self) -> Option<Timestamp> {
        self.not_after
    }

    /// The registers that a document must list with these values.
    pub const fn pcrs(&self) -> &Pcrs {
        &self.pcrs
    }

    /// The registers in which a document differs or that it does not list.
    fn differing(&self, presented: &Pcrs) -> Vec<PcrIndex> {
        let differs = |(index, value): &(PcrIndex, &PcrValue)| presented.get(*index) != Some(*value);
        self.pcrs.iter().filter(differs).map(|(index, _)| index).collect()
    }
}

/// All images that are accepted, at least one: during an upgrade the old one and the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measurements {
    images: Vec<ExpectedImage>,
}

/// No image was given, so nothing could ever be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("measurements need at least one image")]
pub struct NoImages;

impl Measurements {
    /// These images.
    ///
    /// # Errors
    /// [`NoImages`] for none.
    pub fn new(images: Vec<ExpectedImage>) -> Result<Self, NoImages> {
        if images.is_empty() { Err(NoImages) } else { Ok(Self { images }) }
    }

    /// Reads the file that the image build writes. Every problem in it is reported, with its place and its remedy.
    ///
    /// ```
    /// use transcode_confidential::attestation::Measurements;
    ///
    /// let digest = |digit: &str| digit.repeat(96);
    /// let file = format!(
    ///     r#"{{"format": "transcode-confidential/measurements/v1",
    ///         "images": [{{"label": "1.0", "pcrs": {{"0": "{}", "1": "{}", "2": "{}"}}}}]}}"#,
    ///     digest("a"), digest("b"), digest("0"),
    /// );
    /// let error = Measurements::from_json(file).unwrap_err();
    /// assert!(error.to_string().contains(r#"image 1 ("1.0"): PCR2 is all zeros"#));
    /// ```
    ///
    /// # Errors
    /// [`MeasurementsError`] with every problem.
    pub fn from_json(json: impl AsRef<[u8]>) -> Result<Self, MeasurementsError> {
        file::read(json.as_ref())
    }

    /// The file's form of these images.
    pub fn to_json(&self) -> String {
        file::write(self)
    }

    /// These images and those of `other`, as of several files.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.images.extend(other.images);
        self
    }

    /// The images, in the order of the file.
    pub fn images(&self) -> &[ExpectedImage] {
        &self.images
    }

    fn check(&self, presented: &Pcrs, at: Timestamp) -> Result<ImageVerdict, Refusal> {
        let mut expired = None;
        for image in self.images.iter().filter(|image| image.differing(presented).is_empty()) {
            match image.not_after {
                Some(not_after) if at > not_after => expired = Some((image, not_after)),
                _ => return Ok(ImageVerdict::Expected { label: image.label.clone() }),
            }
        }
        Err(match expired {
            Some((image, not_after)) => Refusal::ImageExpired { label: image.label.clone(), not_after, at },
            None => Refusal::UnexpectedImage(Box::new(self.explain(presented))),
        })
    }

    fn explain(&self, presented: &Pcrs) -> UnexpectedImage {
        let differences = self.images.iter().map(|image| (image.label.clone(), image.differing(presented)));
        let (closest, differing) = differences.min_by_key(|(_, differing)| differing.len()).unwrap_or_default();
        let of_image = PcrIndex::OF_IMAGE.map(|index| (index, *presented.get(index).unwrap_or(&PcrValue::ZERO)));
        UnexpectedImage { presented: of_image, closest, differing }
    }
}

/// Whether the image of a document is held against measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePolicy {
    /// The image must be one of these.
    Expect(Measurements),
    /// Any image will do. Made by [`ImagePolicy::danger_any_image`] only.
    #[non_exhaustive]
    AnyImage,
}

impl ImagePolicy {
    /// Accepts every image that runs on the provider's hypervisor outside of debug mode, which anyone can rent: for
    /// looking at documents, never for trusting what they attest.
    pub const fn danger_any_image() -> Self {
        Self::AnyImage
    }

    pub(super) fn check(&self, presented: &Pcrs, at: Timestamp) -> Result<ImageVerdict, Refusal> {
        match self {
            Self::Expect(measurements) => measurements.check(presented, at),
            Self::AnyImage => Ok(ImageVerdict::Unchecked),
        }
    }
}

impl From<Measurements> for ImagePolicy {
    fn from(measurements: Measurements) -> Self {
        Self::Expect(measurements)
    }
}

/// What is known about the image of a verified document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageVerdict {
    /// It is the accepted image of this label.
    Expected {
        /// The label in the measurements.
        label: String,
    },
    /// The verifier asked for no check: any image can have made the document.
    Unchecked,
}

/// `expected` or `unchecked`.
impl fmt::Display for ImageVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expected { .. } => "expected",
            Self::Unchecked => "unchecked",
        })
    }
}
