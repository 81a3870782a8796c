use std::fmt::Write as _;

use serde_json::json;
use transcode_confidential::{attestation::ImageVerdict, protocol::api::Status};

use super::{
    args::Global,
    connection,
    environment::Environment,
    exit::{Done, Failure},
    terminal::line,
};
use crate::{LogView, session::Attestation};

pub(super) fn run(global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let configured = connection::client(global, environment)?;
    connection::block_on(async {
        let client = &configured.client;
        let view = client.log().await?;
        let attestation = client.session().attestation().await.map_err(crate::ClientError::from)?;
        let status = client.status().await?;
        let json = json!({
            "attestation": attested(&attestation),
            "log": { "log_id": view.log_id(), "checkpoint": view.checkpoint().note(), "known_before": known(&view) },
            "status": status,
        });
        let mut done = Done::ok(json, text(&attestation, &view, &status));
        done.notes = configured.notes(&view);
        Ok(done)
    })
}

fn attested(attestation: &Attestation) -> serde_json::Value {
    let document = attestation.document();
    json!({
        "image": document.image().to_string(),
        "label": label(document.image()),
        "module_id": document.module_id(),
        "timestamp": document.timestamp().to_string(),
        "pcrs": document.pcrs(),
        "digest": document.digest(),
        "epoch": attestation.epoch(),
    })
}

fn known(view: &LogView) -> Option<u64> {
    view.known_before().map(|known| known.newest().size)
}

fn label(image: &ImageVerdict) -> Option<&str> {
    match image {
        ImageVerdict::Expected { label } => Some(label),
        _ => None,
    }
}

fn text(attestation: &Attestation, view: &LogView, status: &Status) -> String {
    let document = attestation.document();
    let image = label(document.image()).map_or_else(|| "not checked".into(), |label| format!("{label} (expected)"));
    let mut text = format!(
        "enclave   {}, version {}\nimage     {image}\nattested  {}\nbooted    {}\nits time  {}",
        line(&status.enclave_id),
        line(&status.version),
        document.timestamp(),
        status.booted_at,
        status.time,
    );
    let state = &status.persisted;
    let _ = write!(text, "\nlog       {}, epoch {}, {} events durable", status.log_id, state.epoch, state.size);
    if status.placed_size > state.size {
        let _ = write!(text, ", {} on their way", status.placed_size - state.size);
    }
    let _ = match known(view) {
        Some(size) => write!(text, "\n          continues the {size} events that are remembered here"),
        None => write!(text, "\n          first contact: nothing was remembered of it here"),
    };
    let policy = match status.policy_version {
        0 => "none: everything is denied".into(),
        version => format!("version {version}"),
    };
    let _ = write!(
        text,
        "\npolicy    {policy}\nkeys      {} active, {} due for rotation",
        status.active_keys, status.rotations_due
    );
    let kms = &status.kms;
    let _ =
        write!(text, "\nKMS       {}: {} calls succeeded, {} failed", line(&kms.key_arn), kms.succeeded, kms.failed);
    if let Some(failure) = &kms.last_failure {
        let _ = write!(text, "\n          last failure: {}", line(failure));
    }
    text
}
