//! `confidential top`: a deployment at a glance, again and again.
//!
//! Two sources, and what is shown says which: the proxy's `/metrics`, which is the host's word, also where it hands on the
//! enclave's figures; and the enclave's status over attested TLS.

mod scrape;
mod view;

use std::{
    collections::VecDeque,
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;
use transcode_confidential::protocol::api::Status;
use transport::Endpoint;

use super::{
    args::{Global, TopArgs},
    connection,
    environment::Environment,
    exit::{Done, Failure},
};
use scrape::Scrape;

/// Rates are taken over so much time: the enclave reports every five seconds.
const WINDOW: Duration = Duration::from_secs(16);
/// Where the cursor goes before each look, and what is taken away: everything.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// One look.
pub(super) struct Look {
    at: Instant,
    scrape: Scrape,
    /// The enclave's own word; `None` where nobody asked, or the reason why there was no answer.
    status: Option<Result<Status, String>>,
}

pub(super) fn run(args: &TopArgs, global: &Global, environment: &Environment) -> Result<Done, Failure> {
    let admin = connection::endpoint(&args.admin)?;
    // Whoever has no identity still sees what the proxy says.
    let configured = connection::client(global, environment).ok();
    connection::block_on(async {
        let mut looks = VecDeque::new();
        let live = !args.once && !global.json && std::io::stdout().is_terminal();
        loop {
            let status = match &configured {
                Some(configured) => Some(configured.client.status().await.map_err(|error| error.to_string())),
                None => None,
            };
            let scrape = fetch(&admin).await?;
            looks.push_back(Look { at: Instant::now(), scrape, status });
            while looks.len() > 2 && looks.front().is_some_and(|look: &Look| look.at.elapsed() > WINDOW) {
                looks.pop_front();
            }
            let Some(newest) = looks.back() else { continue };
            let text = view::text(&looks, &args.admin);
            if args.once || global.json {
                let status = newest.status.as_ref().map(|status| match status {
                    Ok(status) => json!(status),
                    Err(error) => json!({ "error": error }),
                });
                return Ok(Done::ok(json!({ "metrics": newest.scrape.json(), "status": status }), text));
            }
            let mut out = std::io::stdout().lock();
            let shown = if live { writeln!(out, "{CLEAR}{text}") } else { writeln!(out, "{text}\n") };
            if shown.and_then(|()| out.flush()).is_err() {
                // Nobody looks any more.
                return Ok(Done::said());
            }
            drop(out);
            tokio::time::sleep(Duration::from_secs(args.interval)).await;
        }
    })
}

async fn fetch(admin: &Endpoint) -> Result<Scrape, Failure> {
    scrape::fetch(admin).await.map_err(|error| Failure::unavailable(format!("{admin}: {error}")))
}
