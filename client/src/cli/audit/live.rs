//! The log of the server, read through the service.

use std::{sync::Arc, time::Duration};

use transcode_confidential::{
    audit::{AuditEvent, verify::SealedEvent},
    ids::Sequence,
};

use super::source::{Range, Source};
use crate::{
    Client, ClientError, LogView,
    cli::{args::Global, connection, environment::Environment, exit::Failure},
};

/// How long the service may hold a request for news.
const WAIT: Duration = Duration::from_secs(5);
/// Pauses before an interrupted reader goes on: the first and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Events of the server's log, up to its checkpoint.
pub(super) fn events(
    range: Range,
    global: &Global,
    environment: &Environment,
    sink: &mut dyn FnMut(SealedEvent),
) -> Result<Source, Failure> {
    let configured = connection::client(global, environment)?;
    let view = connection::block_on(async {
        let view = configured.client.log().await?;
        let last = range.last.map_or(u64::MAX, |last| last.0.saturating_add(1));
        let end = view.checkpoint().state().size.min(last);
        read(&configured.client, range.from, end, sink).await?;
        Ok(view)
    })?;
    let checkpoint = view.checkpoint().clone();
    Ok(Source::live(checkpoint, configured.notes(&view)))
}

async fn read(client: &Client, from: Sequence, end: u64, sink: &mut dyn FnMut(SealedEvent)) -> Result<(), ClientError> {
    let mut reader = client.read_log(from);
    while reader.position().0 < end {
        for (event, _) in reader.next(Duration::ZERO).await?.events {
            if event.sequence.0 < end {
                sink(SealedEvent { event, attachments: Vec::new() });
            }
        }
    }
    Ok(())
}

/// What to do with the events of a tail; `false` ends it.
pub(super) type Show<'a> = &'a mut dyn FnMut(&[(AuditEvent, Vec<u8>)]) -> bool;

/// The last `lines` events, or those from `begin` on; and those that come, where they are followed. An interruption is told and
/// waited for; nothing is left out, and nothing is shown that is not proven.
pub(super) async fn tail(
    client: &Client,
    (begin, lines): (Option<Sequence>, u64),
    follow: bool,
    (show, tell): (Show<'_>, &mut dyn FnMut(String)),
) -> Result<Arc<LogView>, ClientError> {
    let view = client.log().await?;
    let size = view.checkpoint().state().size;
    let begin = begin.unwrap_or(Sequence(size.saturating_sub(lines)));
    if begin.0 > size {
        return Err(crate::log_memory::LogError::NoSuchEvent { event: begin, size }.into());
    }
    let mut reader = client.read_log(begin);
    let mut pause = PAUSE.0;
    while follow || reader.position().0 < size {
        match reader.next(if follow { WAIT } else { Duration::ZERO }).await {
            Ok(page) => {
                pause = PAUSE.0;
                if !page.events.is_empty() && !show(&page.events) {
                    return Ok(view);
                }
            }
            Err(error) if follow && error.retryable() => {
                tell(format!("interrupted: {error}; goes on at event {}", reader.position()));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(view)
}
