//! `measurements.json`: what clients, auditors, key policies and successors are told of an image, and what it was made of.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use transcode_confidential::attestation::{ExpectedImage, Measurements, Pcrs};

use crate::binary::TARGET;

/// A file that decided the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    name: String,
    bytes: usize,
    sha256: String,
}

impl Input {
    pub(crate) fn of(name: &str, content: &[u8]) -> Self {
        Self { name: name.to_owned(), bytes: content.len(), sha256: hex::encode(Sha256::digest(content)) }
    }

    fn to_json(&self) -> Value {
        json!({ "name": self.name, "bytes": self.bytes, "sha256": self.sha256 })
    }
}

/// All that is told of an image. Nothing of the place where it was built: who builds it elsewhere gets the same record.
pub(crate) struct Record {
    pub(crate) label: String,
    pub(crate) pcrs: Pcrs,
    pub(crate) inputs: Vec<Input>,
    pub(crate) image: Input,
    pub(crate) tools: Vec<(&'static str, String)>,
}

impl Record {
    /// The file, as the library reads it; `build` is for people.
    pub(crate) fn to_json(&self) -> anyhow::Result<String> {
        let image = ExpectedImage::new(&self.label, None, self.pcrs.clone())?;
        let mut file: Value = serde_json::from_str(&Measurements::new(vec![image])?.to_json())?;
        let tools: serde_json::Map<_, _> =
            self.tools.iter().map(|(name, version)| ((*name).to_owned(), json!(version))).collect();
        if let Some(file) = file.as_object_mut() {
            file.insert(
                "build".to_owned(),
                json!({
                    "tool": concat!("cargo eif ", env!("CARGO_PKG_VERSION")),
                    "target": TARGET,
                    "tools": tools,
                    "inputs": self.inputs.iter().map(Input::to_json).collect::<Vec<_>>(),
                    "image": self.image.to_json(),
                }),
            );
        }
        Ok(serde_json::to_string_pretty(&file)? + "\n")
    }
}
