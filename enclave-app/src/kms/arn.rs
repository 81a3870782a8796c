//! The ARN of the one key that the enclave uses.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Why a text is not a key ARN that this enclave would use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyArnError {
    /// Not `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`.
    #[error("not a KMS key ARN: its {part} is malformed")]
    Malformed {
        /// The first part that is wrong.
        part: &'static str,
    },
    /// An alias can be pointed at another key by whoever may call `UpdateAlias`.
    #[error("an alias can be pointed at another key: name the key itself")]
    Alias,
    /// A partition whose KMS endpoints are not certified by the roots of [`super::roots::amazon`].
    #[error("partition {0:?} is not supported")]
    Partition(String),
}

/// The full ARN of one KMS key. Region and endpoint follow from it, so neither is configured by itself.
///
/// ```
/// use enclave_app::kms::KeyArn;
///
/// let arn: KeyArn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab".parse()?;
/// assert_eq!(arn.region(), "eu-west-1");
/// assert_eq!(arn.endpoint_host(), "kms.eu-west-1.amazonaws.com");
/// assert!("arn:aws:kms:eu-west-1:111122223333:alias/media".parse::<KeyArn>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyArn {
    text: String,
    region: String,
    account: String,
    key_id: String,
}

impl KeyArn {
    /// The whole ARN.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The region that holds the key.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The twelve digits of the account that owns the key.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The key's id: a UUID, or `mrk-` and 32 hexadecimal digits for a multi-Region key.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The name of the region's KMS endpoint, which its certificate must carry.
    pub fn endpoint_host(&self) -> String {
        format!("kms.{}.amazonaws.com", self.region)
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyArn({})", self.text)
    }
}

impl FromStr for KeyArn {
    type Err = KeyArnError;

    fn from_str(text: &str) -> Result<Self, KeyArnError> {
        let malformed = |part| KeyArnError::Malformed { part };
        let mut parts = text.split(':');
        let mut next = |part| parts.next().ok_or(malformed(part));
        if next("prefix")? != "arn" {
            return Err(malformed("prefix"));
        }
        let partition = next("partition")?;
        if next("service")? != "kms" {
            return Err(malformed("service"));
        }
        let region = next("region")?;
        let account = next("account")?;
        let resource = next("resource")?;
        if parts.next().is_some() {
            return Err(malformed("resource"));
        }
        if !is_region(region) {
            return Err(malformed("region"));
        }
        if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed("account"));
        }
        if resource.starts_with("alias/") {
            return Err(KeyArnError::Alias);
        }
        let key_id = resource.strip_prefix("key/").filter(|id| is_key_id(id)).ok_or(malformed("resource"))?;
        if !matches!(partition, "aws" | "aws-us-gov") {
            return Err(KeyArnError::Partition(partition.chars().take(32).collect()));
        }
        Ok(Self {
            text: text.to_owned(),
            region: region.to_owned(),
            account: account.to_owned(),
            key_id: key_id.to_owned(),
        })
    }
}

impl serde::Serialize for KeyArn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for KeyArn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// `eu-west-1`, `us-gov-east-1`: it becomes a label of a host name, so nothing else may pass.
fn is_region(text: &str) -> bool {
    let labels: Vec<&str> = text.split('-').collect();
    let Some((number, words)) = labels.split_last() else { return false };
    (3..=5).contains(&labels.len())
        && (1..=2).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
        && words.iter().all(|word| (1..=16).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase()))
}

fn is_key_id(text: &str) -> bool {
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match text.strip_prefix("mrk-") {
        Some(digits) => hex(digits, 32),
        None => {
            let parts: Vec<&str> = text.split('-').collect();
            parts.len() == 5 && parts.iter().zip([8, 4, 4, 4, 12]).all(|(part, length)| hex(part, length))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn a_full_arn_gives_region_account_and_endpoint() {
        for (arn, region) in [
            (format!("arn:aws:kms:us-east-1:111122223333:key/{ID}"), "us-east-1"),
            (format!("arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/{ID}"), "us-gov-west-1"),
            (format!("arn:aws:kms:ap-southeast-4:111122223333:key/mrk-{}", "0a".repeat(16)), "ap-southeast-4"),
        ] {
            let parsed: KeyArn = arn.parse().unwrap();
            assert_eq!((parsed.as_str(), parsed.region(), parsed.account()), (arn.as_str(), region, "111122223333"));
            assert_eq!(parsed.endpoint_host(), format!("kms.{region}.amazonaws.com"));
        }
    }

    #[test]
    fn an_alias_is_refused_by_name() {
        assert_eq!("arn:aws:kms:us-east-1:111122223333:alias/media".parse::<KeyArn>(), Err(KeyArnError::Alias));
    }

    #[test]
    fn another_partition_is_refused_by_name() {
        assert_eq!(
            format!("arn:aws-cn:kms:cn-north-1:111122223333:key/{ID}").parse::<KeyArn>(),
            Err(KeyArnError::Partition("aws-cn".into()))
        );
    }

    #[test]
    fn what_could_lead_the_endpoint_elsewhere_is_refused() {
        for bad in [
            String::new(),
            ID.into(),
            "alias/media".into(),
            format!("arn:aws:s3:us-east-1:111122223333:key/{ID}"),
            format!("arn:aws:kms:us-east-1.evil.example/:111122223333:key/{ID}"),
            format!("arn:aws:kms:us-east-1@x-1:111122223333:key/{ID}"),
            format!("arn:aws:kms:US-EAST-1:111122223333:key/{ID}"),
            format!("arn:aws:kms::111122223333:key/{ID}"),
            format!("arn:aws:kms:us-east-1:11112222333:key/{ID}"),
            format!("arn:aws:kms:us-east-1:11112222333x:key/{ID}"),
            format!("arn:aws:kms:us-east-1:111122223333:key/{ID}:extra"),
            format!("arn:aws:kms:us-east-1:111122223333:key/{ID}/x"),
            format!("arn:aws:kms:us-east-1:111122223333:key/{}", ID.to_uppercase()),
            "arn:aws:kms:us-east-1:111122223333:key/*".into(),
            "arn:aws:kms:us-east-1:111122223333:key/mrk-00".into(),
            format!(" arn:aws:kms:us-east-1:111122223333:key/{ID}"),
            format!("arn:aws:kms:us-east-1:111122223333:key/{ID}\n"),
        ] {
            assert!(bad.parse::<KeyArn>().is_err(), "{bad}");
        }
    }
}
