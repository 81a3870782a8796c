use transcode_confidential::{ids::LogId, protocol::host::Durable};

use super::LedgerFatal;

/// Meets a parent again that says what it has: it must have what it acknowledged, and beyond that nothing but what is in flight.
/// Gives how many of the batches in flight, each by where the log stands behind it, are durable.
///
/// # Errors
/// [`LedgerFatal::StoreWentBack`].
pub fn resume(
    log_id: LogId,
    acknowledged: Durable,
    in_flight: impl IntoIterator<Item = Durable>,
    said: Option<(LogId, Durable)>,
) -> Result<usize, LedgerFatal> {
    let Some((said_log, durable)) = said else {
        // A store in which nothing was ever durable is still empty where nothing was ever acknowledged.
        return if acknowledged.size == 0 { Ok(0) } else { Err(LedgerFatal::StoreWentBack) };
    };
    if said_log != log_id {
        return Err(LedgerFatal::StoreWentBack);
    }
    if durable == acknowledged {
        return Ok(0);
    }
    let known = in_flight.into_iter().position(|after| after == durable);
    known.map(|newest| newest + 1).ok_or(LedgerFatal::StoreWentBack)
}
