use crate::{
    attestation::{ExpectedImage, Measurements, PcrIndex, PcrValue, Pcrs},
    cbor::{CborError, Reader, Writer},
};

/// The images of which a caller must be that a grant demands attestation of: written `caller = attested:<measurements>`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct CallerImages(Vec<Pcrs>);

/// Most images in one grant.
const IMAGE_LIMIT: usize = 16;
/// Most registers of one image.
const REGISTER_LIMIT: usize = 32;

impl CallerImages {
    /// The images of measurements, by their registers alone. `None` for more than 16 of them.
    pub fn of(measurements: &Measurements) -> Option<Self> {
        let images: Vec<_> = measurements.images().iter().map(|image| image.pcrs().clone()).collect();
        (images.len() <= IMAGE_LIMIT).then_some(Self(images))
    }

    /// Whether an attested caller with these registers is of one of the images.
    pub fn include(&self, presented: &Pcrs) -> bool {
        self.0.iter().any(|image| image.iter().all(|(index, value)| presented.get(index) == Some(value)))
    }

    /// The registers of each image.
    pub fn images(&self) -> &[Pcrs] {
        &self.0
    }

    pub(super) fn put(&self, out: &mut Writer) {
        out.array(self.0.len());
        for image in &self.0 {
            out.map(image.len());
            for (index, value) in image.iter() {
                out.uint(u64::from(index.get())).bytes(value.as_bytes());
            }
        }
    }

    /// Only what identifies images: PCR0 to PCR2 in each, none of them zero.
    pub(super) fn take(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        let count = reader.array(IMAGE_LIMIT)?;
        let images = (0..count).map(|_| take_image(reader)).collect::<Result<Vec<_>, _>>()?;
        if images.is_empty() { Err(CborError::Range) } else { Ok(Self(images)) }
    }
}

fn take_image(reader: &mut Reader<'_>) -> Result<Pcrs, CborError> {
    let mut map = reader.int_map(REGISTER_LIMIT)?;
    let mut pcrs = Pcrs::default();
    for index in (0..32).filter_map(PcrIndex::new) {
        if let Some(value) = map.optional(u64::from(index.get()))? {
            let value = value.bytes(PcrValue::LEN)?;
            pcrs.insert(index, PcrValue::try_from(value).map_err(|_| CborError::Range)?);
        }
    }
    map.end()?;
    ExpectedImage::new("caller", None, pcrs.clone()).map(|_| pcrs).map_err(|_| CborError::Range)
}
