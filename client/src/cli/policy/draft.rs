use std::path::Path;

use serde::Deserialize;
use transcode_confidential::{
    ids::Principal,
    protocol::policy::{Grant, Operation, Policy},
    time::Timestamp,
};

use crate::cli::{exit::Failure, files};

/// A policy as people write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    deployment: String,
    version: u64,
    #[serde(default)]
    grants: Vec<Grant>,
    #[serde(default)]
    denied: Vec<Principal>,
}

impl Draft {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = files::read_text(path)?;
        Self::parse(&text).map_err(|problem| Failure::file(path, &problem))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let draft: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        if draft.version == 0 {
            return Err("version starts at 1 and grows with every change".into());
        }
        if let Some(grant) = draft.grants.iter().find(|grant| grant.operations.is_empty()) {
            return Err(format!("the grant for {} names no operations", grant.principal));
        }
        Ok(draft)
    }

    pub(super) fn into_policy(self, issued_at: Timestamp) -> Policy {
        let Self { deployment, version, grants, denied } = self;
        Policy { deployment, version, issued_at, grants, denied }
    }
}

/// The policy that `policy init` writes.
pub(super) fn template(deployment: &str) -> Result<String, Failure> {
    let suits = (1..=128).contains(&deployment.len()) && !deployment.contains(|c: char| c.is_control());
    if !suits {
        return Err(Failure::usage("--deployment: 1 to 128 characters, as in the enclave's configuration"));
    }
    let deployment = toml::Value::from(deployment);
    let operations = Operation::ALL.map(word).join(", ");
    Ok(format!(
        r#"# Who may do what. What is not granted is denied.
# Sign it with: confidential policy sign policy.toml

# The deployment that this is for: the name in the enclave's measured configuration. Another one refuses it.
deployment = {deployment}

# Raise it with every change: an enclave never goes back to an older version.
version = 1

# Principals that may do nothing, whatever is granted below. It cuts them off at once.
denied = []

# A principal is the common name of a client certificate (confidential pki client NAME), or "*" for all of them.
# keys is the beginning of key ids: "film-" is for film-1 and film-2; "" is for all keys.
# The operations: {operations}.

[[grants]]
principal = "transcoder-1"
keys = "film-"
operations = ["encrypt", "decrypt"]

[[grants]]
principal = "key-manager"
keys = ""
operations = ["generate", "rotate", "revoke", "admin"]
"#
    ))
}

/// The word for an operation in policies.
pub(super) fn word(operation: Operation) -> String {
    serde_json::to_value(operation).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_policy() {
        let draft = Draft::parse(&template("studio \"B\"").unwrap()).unwrap();
        let policy = draft.into_policy(Timestamp(1));
        assert_eq!((policy.deployment.as_str(), policy.version, policy.grants.len()), ("studio \"B\"", 1, 2));
        assert_eq!(Policy::decode(&policy.encode()), Ok(policy));
    }

    #[test]
    fn a_policy_that_says_nothing_or_too_much_is_refused() {
        let base = "deployment = 'd'\nversion = 1\n";
        assert!(Draft::parse(base).is_ok());
        for wrong in [
            "deployment = 'd'\nversion = 0\n".to_owned(),
            format!("{base}[[grants]]\nprincipal = 'p'\noperations = []\n"),
            format!("{base}[[grants]]\nprincipal = 'p'\noperations = ['fly']\n"),
            format!("{base}[[grants]]\nprincipal = 'p q'\noperations = ['encrypt']\n"),
            format!("{base}allow = '*'\n"),
        ] {
            assert!(Draft::parse(&wrong).is_err(), "{wrong}");
        }
    }
}
