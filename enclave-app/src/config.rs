//! The measured configuration: what the image is told about its deployment. It lies in the image, so it is part of PCR2;
//! nothing else configures the enclave.

use serde::Deserialize;
use thiserror::Error;
use transcode_confidential::{
    attestation::{ExpectedImage, MeasurementsError, PcrIndex, PcrValue, Pcrs},
    keys::KeyRotationPolicy,
    signature::PublicKey,
};
use transport::Endpoint;

use crate::{archive::LogKeeping, kms::KeyArn};

/// The configuration file, TOML. Unknown fields are errors.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the deployment; signed policies name it too.
    pub deployment: String,
    /// ARN of the one KMS key that wraps this log's keys.
    #[serde(deserialize_with = "from_text")]
    pub kms_key_arn: KeyArn,
    /// Ed25519 public key of the policy authority, 64 hexadecimal digits.
    pub policy_authority: PublicKey,
    /// Certificate authority of the clients, PEM.
    pub client_ca: String,
    /// How the parent is reached and reaches us.
    pub parent: Parent,
    /// Images whose epochs this one accepts besides its own.
    #[serde(default)]
    pub predecessors: Vec<Predecessor>,
    /// Where checkpoints are anchored. None exist yet, so the list is empty.
    #[serde(default)]
    pub anchors: Vec<NoAnchor>,
    /// Policy of keys that are created without one.
    #[serde(default)]
    pub key_defaults: KeyRotationPolicy,
    /// How much and how long.
    #[serde(default)]
    pub limits: Limits,
    /// When snapshots of the log are taken, and what of it is kept.
    #[serde(default)]
    pub log: LogKeeping,
}

/// Endpoints on and for the parent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// Where the host service listens, as `vsock:3:5001`.
    pub host: Endpoint,
    /// Where the egress listens, as `vsock:3:5002`.
    pub egress: Endpoint,
    /// Where we listen for clients that the parent relays, as `vsock:any:5000`.
    pub listen: Endpoint,
}

/// An earlier image whose epochs are accepted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predecessor {
    /// A name for it.
    pub label: String,
    /// PCR0, 96 hexadecimal digits.
    pub pcr0: String,
    /// PCR1.
    pub pcr1: String,
    /// PCR2.
    pub pcr2: String,
}

/// The kinds of anchor: none yet.
#[derive(Debug, Clone, Copy, Deserialize)]
pub enum NoAnchor {}

/// How much and how long.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections at the same time.
    pub connections: usize,
    /// How long a request waits for its event to be durable, in milliseconds.
    pub audit_wait_ms: u64,
    /// Events that may wait to be durable.
    pub audit_backlog: u32,
    /// Attestation documents for clients per second, over all connections.
    pub attestations_per_second: u32,
    /// Seconds between two looks for keys that should rotate.
    pub sweep_secs: u64,
    /// Seconds between two re-attestations.
    pub reattest_secs: u64,
    /// Seconds between two looks for a newer policy.
    pub policy_poll_secs: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            audit_wait_ms: 10_000,
            audit_backlog: 8192,
            attestations_per_second: 50,
            sweep_secs: 10,
            reattest_secs: 3600,
            policy_poll_secs: 5,
        }
    }
}

/// Why a configuration is not accepted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not TOML, or not of this shape; the text points at the line.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A predecessor's measurements are no measurements.
    #[error("predecessor {label:?}: {error}")]
    Predecessor {
        /// Its label.
        label: String,
        /// What is wrong.
        error: MeasurementsError,
    },
    /// A predecessor's register is not 96 hexadecimal digits.
    #[error("predecessor {label:?}: PCR{pcr} is not 96 hexadecimal digits")]
    Register {
        /// Its label.
        label: String,
        /// The register.
        pcr: u8,
    },
    /// The default rotation policy does not limit.
    #[error("key_defaults: {0}")]
    KeyDefaults(transcode_confidential::keys::KeyError),
    /// The deployment has no usable name.
    #[error("deployment: give it a name of 1 to 128 characters")]
    Deployment,
    /// A limit is zero.
    #[error("limits, log: {0} must not be 0")]
    ZeroLimit(&'static str),
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`ConfigError`], with what to mend.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        if config.deployment.is_empty() || config.deployment.len() > 128 {
            return Err(ConfigError::Deployment);
        }
        config.key_defaults.check().map_err(ConfigError::KeyDefaults)?;
        let limits = &config.limits;
        for (name, zero) in [
            ("connections", limits.connections == 0),
            ("audit_wait_ms", limits.audit_wait_ms == 0),
            ("audit_backlog", limits.audit_backlog == 0),
            ("attestations_per_second", limits.attestations_per_second == 0),
            ("sweep_secs", limits.sweep_secs == 0),
            ("reattest_secs", limits.reattest_secs == 0),
            ("policy_poll_secs", limits.policy_poll_secs == 0),
            ("snapshot_events", config.log.snapshot_events == 0),
            ("snapshot_hours", config.log.snapshot_hours == 0),
        ] {
            if zero {
                return Err(ConfigError::ZeroLimit(name));
            }
        }
        config.predecessor_images()?;
        Ok(config)
    }

    /// The predecessors as measurements.
    ///
    /// # Errors
    /// [`ConfigError::Predecessor`], [`ConfigError::Register`].
    pub fn predecessor_images(&self) -> Result<Vec<ExpectedImage>, ConfigError> {
        self.predecessors.iter().map(Predecessor::image).collect()
    }
}

impl Predecessor {
    fn image(&self) -> Result<ExpectedImage, ConfigError> {
        let mut pcrs = Pcrs::default();
        for (pcr, text) in (0_u8..).zip([&self.pcr0, &self.pcr1, &self.pcr2]) {
            let register = || ConfigError::Register { label: self.label.clone(), pcr };
            let value: PcrValue = text.parse().map_err(|_| register())?;
            pcrs.insert(PcrIndex::new(pcr).ok_or_else(register)?, value);
        }
        ExpectedImage::new(&self.label, None, pcrs)
            .map_err(|error| ConfigError::Predecessor { label: self.label.clone(), error })
    }
}

fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
    D: serde::Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
deployment = "studio"
kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
policy_authority = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
client_ca = "-----BEGIN CERTIFICATE-----"

[parent]
host = "vsock:3:5001"
egress = "vsock:3:5002"
listen = "vsock:any:5000"
"#;

    #[test]
    fn a_configuration_is_read_with_its_defaults() {
        let config = Config::from_toml(GOOD).unwrap();
        assert_eq!(config.kms_key_arn.region(), "eu-central-1");
        assert_eq!(config.limits.reattest_secs, 3600);
    }

    #[test]
    fn the_example_that_operators_start_from_is_a_configuration() {
        let config = Config::from_toml(include_str!("../../eif/enclave.example.toml")).unwrap();
        assert!(config.key_defaults.require_attestation);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (from, to, says) in [
            ("deployment = \"studio\"", "deployment = \"\"", "deployment"),
            ("[parent]", "colour = 1\n[parent]", "colour"),
            ("key/1234abcd-12ab-34cd-56ef-1234567890ab", "alias/films", "line"),
            ("vsock:3:5001", "vsock:3", "line"),
            ("[parent]", "[limits]\nconnections = 0\n[parent]", "connections"),
            (
                "[parent]",
                "[key_defaults]\nmax_age_secs = 0\nmax_uses = 1\nrequire_attestation = false\n[parent]",
                "max_age_secs",
            ),
            (
                "[parent]",
                "[[predecessors]]\nlabel = \"old\"\npcr0 = \"00\"\npcr1 = \"\"\npcr2 = \"\"\n[parent]",
                "PCR0",
            ),
        ] {
            let error = Config::from_toml(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
