use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::{ClientError, ErrorKind};

/// Pauses between two tries: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// How long something is tried again that an enclave does not do at once, because it is being started anew, say.
pub(super) struct Patience {
    until: Instant,
    pause: Duration,
    tries: u32,
}

impl Patience {
    pub(super) fn new(within: Duration) -> Self {
        Self { until: Instant::now() + within, pause: PAUSES.0, tries: 0 }
    }

    /// Tries until it works, fails for good, or takes too long; then the last failure counts.
    pub(super) async fn keep_trying<T, F>(mut self, mut attempt: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        loop {
            match attempt().await {
                Ok(done) => {
                    self.recovered();
                    return Ok(done);
                }
                Err(error) if is_passing(&error) && self.pause(&error).await => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits before the next try. `false` where there is no time for one.
    pub(super) async fn pause(&mut self, error: &ClientError) -> bool {
        let next = Instant::now() + self.pause;
        if next >= self.until {
            return false;
        }
        if self.tries == 0 {
            warn!(%error, "the enclave does not answer; trying again");
        }
        self.tries += 1;
        self.pause = (self.pause * 2).min(PAUSES.1);
        sleep_until(next).await;
        true
    }

    /// Says that it worked in the end.
    pub(super) fn recovered(&self) {
        if self.tries > 0 {
            info!(tries = self.tries, "the enclave answers again");
        }
    }
}

/// Whether the same may work a little later.
pub(super) fn is_passing(error: &ClientError) -> bool {
    match error.answer() {
        Some(answer) => answer.retryable,
        None => error.kind() == ErrorKind::Unavailable,
    }
}
