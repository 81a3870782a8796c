//! What is done to the log of a running enclave: snapshots, legal holds, pruning.

use std::fmt::Write as _;

use serde_json::json;
use transcode_confidential::protocol::api::{HoldInfo, LogMaintained};

use crate::{
    Client,
    cli::{
        args::{Global, LogVerb, ReceiptFile},
        connection,
        environment::Environment,
        exit::{Done, Failure},
        terminal::line,
    },
};

pub(super) fn run(verb: LogVerb, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let configured = connection::client(global, environment)?;
    connection::block_on(async {
        let view = configured.client.log().await?;
        let mut done = carry_out(verb, &configured.client).await?;
        done.notes = configured.notes(&view);
        Ok(done)
    })
}

async fn carry_out(verb: LogVerb, client: &Client) -> Result<Done, Failure> {
    match verb {
        LogVerb::Snapshot { receipt } => maintained("wrote the state down", &client.snapshot_log().await?, &receipt),
        LogVerb::Prune { up_to, receipt } => {
            let done = client.prune_log(up_to).await?;
            let from = done.below.map(|below| below.to_string()).unwrap_or_default();
            maintained(&format!("gave up the events before {from}"), &done, &receipt)
        }
        LogVerb::Hold { name, receipt } => {
            maintained(&format!("holding: {}", line(&name)), &client.place_hold(&name).await?, &receipt)
        }
        LogVerb::Lift { name, receipt } => {
            maintained(&format!("lifted: {}", line(&name)), &client.lift_hold(&name).await?, &receipt)
        }
        LogVerb::Holds => {
            let holds = client.holds().await?;
            Ok(Done::ok(json!({ "holds": holds }), list(&holds)))
        }
    }
}

fn maintained(what: &str, done: &LogMaintained, file: &ReceiptFile) -> Result<Done, Failure> {
    connection::keep(&done.receipt, file)?;
    let receipt = &done.receipt.0;
    let text = format!("{what}\non the record as event {} of log {}", done.sequence, receipt.log_id());
    let json = json!({
        "log_id": receipt.log_id(),
        "sequence": done.sequence,
        "below": done.below,
        "receipt": done.receipt,
    });
    Ok(Done::ok(json, text))
}

fn list(holds: &[HoldInfo]) -> String {
    if holds.is_empty() {
        return "no legal hold is in force".into();
    }
    let mut text = String::new();
    for hold in holds {
        let by = hold.principal.as_deref().unwrap_or("-");
        let _ =
            writeln!(text, "{}  since {} (event {})  by {}", line(&hold.name), hold.placed_at, hold.since, line(by));
    }
    text.trim_end().to_owned()
}
