use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;
use transcode_confidential::{
    attestation::Measurements,
    ids::Principal,
    protocol::policy::{CallerImages, Grant, Operation, Policy, WhichPrincipal},
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
    grants: Vec<DraftGrant>,
    #[serde(default)]
    denied: Vec<Principal>,
}

/// A grant as people write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftGrant {
    principal: WhichPrincipal,
    #[serde(default)]
    keys: String,
    operations: BTreeSet<Operation>,
    /// `attested:FILE`, a measurements file, relative to the policy's.
    caller: Option<String>,
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

    /// The policy; measurements that it names are read from beside `path`.
    pub(super) fn into_policy(self, issued_at: Timestamp, path: &Path) -> Result<Policy, Failure> {
        let Self { deployment, version, grants, denied } = self;
        let grants = grants.into_iter().map(|grant| grant.into_grant(path)).collect::<Result<_, _>>()?;
        Ok(Policy { deployment, version, issued_at, grants, denied })
    }
}

impl DraftGrant {
    fn into_grant(self, path: &Path) -> Result<Grant, Failure> {
        let Self { principal, keys: key_prefix, operations, caller } = self;
        let caller = caller.map(|caller| images(&caller, path)).transpose()?;
        Ok(Grant { principal, key_prefix, operations, caller })
    }
}

fn images(caller: &str, path: &Path) -> Result<CallerImages, Failure> {
    let file = caller.strip_prefix("attested:").ok_or_else(|| {
        Failure::file(
            path,
            &format!("caller = {caller:?}: write \"attested:FILE\", with the measurements of the images"),
        )
    })?;
    let file = path.parent().unwrap_or(Path::new("")).join(file);
    let measurements = Measurements::from_json(files::read(&file)?).map_err(|error| Failure::file(&file, &error))?;
    CallerImages::of(&measurements).ok_or_else(|| Failure::file(&file, &"more than 16 images in one grant"))
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
# caller = "attested:transcoder.json" in a grant demands that the caller is an enclave itself, of an image in that measurements file.

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
        let policy = draft.into_policy(Timestamp(1), Path::new("policy.toml")).unwrap();
        assert_eq!((policy.deployment.as_str(), policy.version, policy.grants.len()), ("studio \"B\"", 1, 2));
        assert_eq!(Policy::decode(&policy.encode()), Ok(policy));
    }

    #[test]
    fn a_grant_may_demand_an_attested_caller_by_a_measurements_file_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let pcr = |digit: &str| digit.repeat(96);
        let measurements = format!(
            r#"{{"format": "transcode-confidential/measurements/v1", "images": [{{"label": "1", "pcrs": {{"0": "{}", "1": "{}", "2": "{}"}}}}]}}"#,
            pcr("a"),
            pcr("b"),
            pcr("c")
        );
        std::fs::write(dir.path().join("transcoder.json"), measurements).unwrap();
        let draft = |caller: &str| {
            let text = format!(
                "deployment = 'd'\nversion = 1\n[[grants]]\nprincipal = 'p'\noperations = ['decrypt']\ncaller = '{caller}'"
            );
            Draft::parse(&text).unwrap().into_policy(Timestamp(1), &dir.path().join("policy.toml"))
        };
        let policy = draft("attested:transcoder.json").unwrap();
        assert_eq!(policy.grants[0].caller.as_ref().unwrap().images().len(), 1);
        assert_eq!(Policy::decode(&policy.encode()), Ok(policy));
        for wrong in ["transcoder.json", "attested:", "attested:other.json", "attested:policy.toml"] {
            assert!(draft(wrong).is_err(), "{wrong}");
        }
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
