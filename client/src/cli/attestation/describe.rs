//! What a document says, for programs and for people.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};
use transcode_confidential::{
    attestation::{Claims, PcrIndex, UserData},
    ids::Digest,
    time::Timestamp,
};

use crate::cli::terminal::line;

/// What a document says, for programs.
pub(super) fn claimed(claims: &Claims) -> Value {
    json!({
        "module_id": claims.module_id(),
        "timestamp": claims.timestamp().to_string(),
        "pcrs": claims.pcrs(),
        "purpose": purpose(claims).map(|data| data.purpose()),
        "log_id": purpose(claims).and_then(|data| data.log_id()),
        "public_key": claims.public_key().map(hex::encode),
        "user_data": claims.user_data().map(hex::encode),
        "nonce": claims.nonce().map(hex::encode),
    })
}

/// What a document says, for people. PCRs that are listed but zero are named together.
pub(super) fn describe(claims: &Claims, now: Timestamp) -> String {
    let mut text = format!("  enclave     {}", line(claims.module_id()));
    let _ = write!(text, "\n  made        {} ({})", claims.timestamp(), age(claims.timestamp(), now));
    let _ = write!(text, "\n  purpose     {}", purpose_text(claims));
    for (title, field) in [("public key", claims.public_key()), ("nonce", claims.nonce())] {
        let _ = match field {
            None => write!(text, "\n  {title:11} none"),
            Some(bytes) if bytes.len() <= 48 => write!(text, "\n  {title:11} {}", hex::encode(bytes)),
            Some(bytes) => write!(text, "\n  {title:11} {} bytes, SHA-256 {}", bytes.len(), Digest::of(bytes)),
        };
    }
    let mut zero = Vec::new();
    for (index, value) in claims.pcrs().iter() {
        if value.is_zero() && !PcrIndex::OF_IMAGE.contains(&index) {
            zero.push(index.to_string());
        } else {
            let _ = write!(text, "\n  {:11} {value}{}", index.to_string(), meaning(index));
        }
    }
    if !zero.is_empty() {
        let _ = write!(text, "\n  zero        {}", zero.join(" "));
    }
    text
}

fn purpose(claims: &Claims) -> Option<UserData> {
    claims.user_data().and_then(|bytes| UserData::decode(bytes).ok())
}

fn purpose_text(claims: &Claims) -> String {
    match (purpose(claims), claims.user_data()) {
        (Some(UserData::Epoch { log_id, epoch, first, .. }), _) => {
            format!("epoch: opens epoch {epoch} of log {log_id} at event {first}")
        }
        (Some(UserData::Channel { log_id, epoch }), _) => format!("channel: a client of log {log_id}, epoch {epoch}"),
        (Some(UserData::Head { log_id, epoch, size, .. }), _) => {
            format!("head: log {log_id} has {size} events in epoch {epoch}")
        }
        (Some(UserData::Kms { request, .. }), _) => format!("kms: for the request {request}"),
        (Some(UserData::Caller { log_id }), _) => format!("caller: of the enclave of log {log_id}"),
        (Some(data), _) => data.purpose().to_string(),
        (None, Some(bytes)) => format!("none that is known here: {} bytes of user data", bytes.len()),
        (None, None) => "none: no user data".into(),
    }
}

const fn meaning(index: PcrIndex) -> &'static str {
    match index.get() {
        0 => "  image",
        1 => "  kernel",
        2 => "  application",
        3 => "  parent's role",
        4 => "  parent instance",
        8 => "  image signer",
        16 => "  log, in this project's images",
        17 => "  epoch, in this project's images",
        _ => "",
    }
}

fn age(made: Timestamp, now: Timestamp) -> String {
    let (age, ahead) = (now.since(made), made.since(now));
    if ahead > Duration::ZERO { format!("{} in the future", span(ahead)) } else { format!("{} ago", span(age)) }
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
