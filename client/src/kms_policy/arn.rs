use std::fmt;

use thiserror::Error;

/// A text is not the ARN that was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not {expected}")]
pub struct ArnError {
    text: String,
    expected: &'static str,
}

/// The ARN of one key, role or user: `arn:partition:service:region:account:resource`, without wildcards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arn {
    text: String,
    account: String,
    resource: String,
}

impl Arn {
    /// A KMS key by its id; an alias could be pointed elsewhere.
    ///
    /// # Errors
    /// [`ArnError`] for anything else, wildcards and aliases included.
    pub fn key(text: &str) -> Result<Self, ArnError> {
        let refuse = || ArnError::new(text, "the ARN of a KMS key (an alias will not do)");
        let arn = Self::parse(text, "kms").ok_or_else(refuse)?;
        if arn.resource.starts_with("key/") { Ok(arn) } else { Err(refuse()) }
    }

    /// An IAM role.
    ///
    /// # Errors
    /// [`ArnError`] for anything else.
    pub fn role(text: &str) -> Result<Self, ArnError> {
        let refuse = || ArnError::new(text, "the ARN of an IAM role");
        let arn = Self::parse(text, "iam").ok_or_else(refuse)?;
        if arn.resource.starts_with("role/") { Ok(arn) } else { Err(refuse()) }
    }

    /// An IAM role or user: the account itself would hand the decision to everybody's own policies.
    ///
    /// # Errors
    /// [`ArnError`] for anything else, the account's root included.
    pub fn administrator(text: &str) -> Result<Self, ArnError> {
        let refuse = || ArnError::new(text, "the ARN of an IAM role or user (the account's root will not do)");
        let arn = Self::parse(text, "iam").ok_or_else(refuse)?;
        if ["role/", "user/"].iter().any(|kind| arn.resource.starts_with(kind)) { Ok(arn) } else { Err(refuse()) }
    }

    /// The whole ARN.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The account's twelve digits.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The last part of the resource: a role's name without its path, a key's id.
    pub fn name(&self) -> &str {
        self.resource.rsplit('/').next().unwrap_or_default()
    }

    fn parse(text: &str, service: &str) -> Option<Self> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, in_service, region, account, resource] = *parts else { return None };
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"/+=,.@_-".contains(&b);
        let is_sound = is_word(partition)
            && in_service == service
            && region.is_empty() != is_word(region)
            && region.is_empty() == (service == "iam")
            && account.len() == 12
            && account.bytes().all(|b| b.is_ascii_digit())
            && resource.len() <= 600
            && resource.bytes().all(is_name)
            && !resource.ends_with('/');
        is_sound.then(|| Self { text: text.to_owned(), account: account.to_owned(), resource: resource.to_owned() })
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ArnError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(200).collect(), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_without_their_path() {
        assert_eq!(Arn::role("arn:aws:iam::111122223333:role/app/enclave").unwrap().name(), "enclave");
        assert_eq!(Arn::key("arn:aws:kms:eu-west-1:111122223333:key/mrk-12").unwrap().name(), "mrk-12");
    }

    #[test]
    fn what_names_more_than_one_is_refused() {
        for text in [
            "arn:aws:iam::111122223333:root",
            "arn:aws:iam::111122223333:role/*",
            "arn:aws:iam::*:role/x",
            "arn:aws:sts::111122223333:assumed-role/x/y",
            "arn:aws:iam:eu-west-1:111122223333:role/x",
            "*",
            "111122223333",
        ] {
            assert!(Arn::administrator(text).is_err(), "{text}");
        }
        assert!(Arn::role("arn:aws:iam::111122223333:user/x").is_err());
        assert!(Arn::key("arn:aws:kms:eu-west-1:111122223333:alias/x").is_err());
        assert!(Arn::key("arn:aws:kms::111122223333:key/x").is_err());
    }
}
