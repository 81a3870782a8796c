use std::{fmt::Write as _, path::Path};

use serde_json::json;
use transcode_confidential::{
    ids::KeyVersion,
    keys::{KeyState, RotationNeed},
    protocol::api::{BatchOperation, BatchResult, CreateKey, KeyChanged, KeyInfo},
    time::Timestamp,
};

use super::{
    args::{Expected, Global, KeysVerb, Once},
    connection,
    environment::Environment,
    exit::{Done, Exit, Failure},
    files,
};
use crate::Client;

pub(super) fn run(verb: KeysVerb, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let configured = connection::client(global, environment)?;
    connection::block_on(async {
        let mut done = carry_out(verb, &configured.client).await?;
        // Only now: what takes something away is said to the enclave also where its log cannot be checked.
        let view = configured.client.log().await?;
        done.notes = configured.notes(&view);
        Ok(done)
    })
}

async fn carry_out(verb: KeysVerb, client: &Client) -> Result<Done, Failure> {
    match verb {
        KeysVerb::Generate { id, max_age_secs, max_uses, require_attestation, once } => {
            let request = CreateKey { id, max_age_secs, max_uses, require_attestation };
            changed("generated", &by(client, &once).generate_key(&request).await?, &once)
        }
        KeysVerb::List => {
            let keys = client.list_keys().await?;
            Ok(Done::ok(json!({ "keys": keys }), table(&keys)))
        }
        KeysVerb::Show { id } => {
            let key = client.key(&id).await?;
            Ok(Done::ok(json!({ "key": key }), details(&key)))
        }
        KeysVerb::Rotate { id, expected: Expected { expected_version }, once } => {
            changed("rotated", &by(client, &once).rotate_key(&id, expected_version).await?, &once)
        }
        KeysVerb::Revoke { id, once } => changed("revoked", &by(client, &once).revoke_key(&id).await?, &once),
        KeysVerb::Suspend { id, expected: Expected { expected_version }, once } => {
            changed("suspended", &by(client, &once).suspend_key(&id, expected_version).await?, &once)
        }
        KeysVerb::Resume { id, expected: Expected { expected_version }, once } => {
            changed("resumed", &by(client, &once).resume_key(&id, expected_version).await?, &once)
        }
        KeysVerb::Destroy { id, version: None, expected: Expected { expected_version }, once } => {
            changed("destroyed", &by(client, &once).destroy_key(&id, expected_version).await?, &once)
        }
        KeysVerb::Destroy { id, version: Some(version), once, .. } => {
            let what = format!("destroyed version {version} of");
            changed(&what, &by(client, &once).destroy_version(&id, version).await?, &once)
        }
        KeysVerb::DecryptFrom { id, version, expected: Expected { expected_version }, once } => {
            let what = format!("decrypts from version {version} on:");
            changed(&what, &by(client, &once).decrypt_from(&id, version, expected_version).await?, &once)
        }
        KeysVerb::Batch { file, idempotency_key } => {
            let operations = read_batch(&file)?;
            let client = connection::once(client, idempotency_key.as_deref());
            Ok(batch(&operations, &client.batch(operations.clone()).await?))
        }
    }
}

fn by(client: &Client, once: &Once) -> Client {
    connection::once(client, once.idempotency_key.as_deref())
}

fn read_batch(file: &Path) -> Result<Vec<BatchOperation>, Failure> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).map_err(|error| Failure::file(file, &error))?
    } else {
        files::read_text(file)?
    };
    serde_json::from_str(&text).map_err(|error| Failure::file(file, &error))
}

/// What became of each operation. Where one was refused, so was the command.
fn batch(operations: &[BatchOperation], results: &[BatchResult]) -> Done {
    let mut lines = Vec::new();
    for (operation, result) in operations.iter().zip(results) {
        lines.push(match (&result.changed, &result.error) {
            (Some(changed), _) => format!("{}, event {}", summary(&changed.key), changed.receipt.0.sequence),
            (None, Some(error)) => format!("{}: {error}", operation.key()),
            (None, None) => format!("{}: status {}", operation.key(), result.status),
        });
    }
    let mut done = Done::ok(json!({ "results": results }), lines.join("\n"));
    if results.iter().any(|result| result.changed.is_none()) {
        done.exit = Exit::Denied;
    }
    done
}

fn changed(what: &str, changed: &KeyChanged, once: &Once) -> Result<Done, Failure> {
    connection::keep(&changed.receipt, &once.receipt)?;
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
    if key.decrypt_from > KeyVersion(1) {
        let _ = write!(text, "\ndecrypts from version {} on", key.decrypt_from);
    }
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
