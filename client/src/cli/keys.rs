use std::fmt::Write as _;

use serde_json::json;
use transcode_confidential::{
    keys::{KeyState, RotationNeed},
    protocol::api::{CreateKey, KeyChanged, KeyInfo},
    time::Timestamp,
};

use super::{
    args::{Global, KeysVerb, ReceiptFile},
    connection,
    environment::Environment,
    exit::{Done, Failure},
};
use crate::Client;

pub(super) fn run(verb: KeysVerb, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let configured = connection::client(global, environment)?;
    connection::block_on(async {
        let view = configured.client.log().await?;
        let mut done = carry_out(verb, &configured.client).await?;
        done.notes = configured.notes(&view);
        Ok(done)
    })
}

async fn carry_out(verb: KeysVerb, client: &Client) -> Result<Done, Failure> {
    match verb {
        KeysVerb::Generate { id, max_age_secs, max_uses, require_attestation, receipt } => {
            let request = CreateKey { id, max_age_secs, max_uses, require_attestation };
            changed("generated", &client.generate_key(&request).await?, &receipt)
        }
        KeysVerb::List => {
            let keys = client.list_keys().await?;
            Ok(Done::ok(json!({ "keys": keys }), table(&keys)))
        }
        KeysVerb::Show { id } => {
            let key = client.key(&id).await?;
            Ok(Done::ok(json!({ "key": key }), details(&key)))
        }
        KeysVerb::Rotate { id, expected_version, receipt } => {
            changed("rotated", &client.rotate_key(&id, expected_version).await?, &receipt)
        }
        KeysVerb::Revoke { id, receipt } => changed("revoked", &client.revoke_key(&id).await?, &receipt),
    }
}

fn changed(what: &str, changed: &KeyChanged, file: &ReceiptFile) -> Result<Done, Failure> {
    connection::keep(&changed.receipt, file)?;
    let receipt = &changed.receipt.0;
    let text = format!(
        "{what} {}\non the record as event {} of log {}",
        summary(&changed.key),
        receipt.sequence,
        receipt.log_id()
    );
    let json = json!({
        "key": changed.key,
        "log_id": receipt.log_id(),
        "sequence": receipt.sequence,
        "receipt": changed.receipt,
    });
    Ok(Done::ok(json, text))
}

fn summary(key: &KeyInfo) -> String {
    let mut text = format!("{}, {}", key.id, state(key.state));
    if let Some(version) = key.active_version {
        let _ = write!(text, ", version {version}");
    }
    text
}

fn table(keys: &[KeyInfo]) -> String {
    if keys.is_empty() {
        return "no keys that this identity has a grant for".into();
    }
    let width = keys.iter().map(|key| key.id.as_str().len()).max().unwrap_or_default().max(3);
    let mut text = format!("{:width$}  {:9}  {:>7}  {:>14}  {}", "KEY", "STATE", "VERSION", "USES", "ROTATION");
    for key in keys {
        let version = key.active_version.map_or_else(|| "-".into(), |version| version.to_string());
        let uses = active_uses(key).map_or_else(|| "-".into(), |uses| format!("{uses}/{}", key.policy.max_uses));
        let _ = write!(
            text,
            "\n{:width$}  {:9}  {version:>7}  {uses:>14}  {}",
            key.id.as_str(),
            state(key.state),
            rotation(key)
        );
    }
    text
}

fn details(key: &KeyInfo) -> String {
    let mut text = summary(key);
    let attested = if key.policy.require_attestation { ", attested anew each time" } else { "" };
    let _ = write!(
        text,
        "\nrotates after {} s or {} uses{attested}: {}",
        key.policy.max_age_secs,
        key.policy.max_uses,
        rotation(key)
    );
    for version in &key.versions {
        let _ = write!(
            text,
            "\n  version {}  {}  made {}  {} uses",
            version.version,
            word(&version.state),
            version.created_at,
            version.uses
        );
    }
    text
}

fn rotation(key: &KeyInfo) -> String {
    let active = key.versions.iter().find(|version| Some(version.version) == key.active_version);
    match (key.state, key.rotation, active) {
        (KeyState::Active, RotationNeed::None, Some(version)) => {
            let by = Timestamp(version.created_at.0.saturating_add(key.policy.max_age_secs.saturating_mul(1000)));
            format!("by {by}")
        }
        (KeyState::Active, RotationNeed::Due, _) => "due".into(),
        (KeyState::Active, RotationNeed::Required, _) => "required before any further use".into(),
        _ => "-".into(),
    }
}

fn active_uses(key: &KeyInfo) -> Option<u64> {
    key.versions.iter().find(|version| Some(version.version) == key.active_version).map(|version| version.uses)
}

fn state(state: KeyState) -> String {
    word(&state)
}

/// The word that the API uses.
fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
