//! Children: the service has none, but whatever becomes an orphan becomes the first process's.

use rustix::process::{WaitOptions, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Waits for every child that ends, for ever. The process must not wait for children of its own elsewhere.
pub async fn reap() {
    let Ok(mut ended) = signal(SignalKind::child()) else { return };
    loop {
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            tracing::debug!(pid = pid.as_raw_nonzero().get(), "an orphan ended");
        }
        if ended.recv().await.is_none() {
            return;
        }
    }
}
