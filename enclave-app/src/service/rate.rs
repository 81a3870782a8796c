use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// A token bucket: a number of requests a second, with a burst of one second's worth.
pub struct Rate {
    per_second: f64,
    state: Mutex<(f64, Instant)>,
}

impl Rate {
    /// A full bucket.
    pub fn per_second(requests: u32) -> Self {
        let per_second = f64::from(requests);
        Self { per_second, state: Mutex::new((per_second, Instant::now())) }
    }

    /// Takes a token where there is one.
    pub fn allow(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = *state;
        let now = Instant::now();
        let tokens = (tokens + now.duration_since(since).as_secs_f64() * self.per_second).min(self.per_second);
        let allowed = tokens >= 1.0;
        *state = (if allowed { tokens - 1.0 } else { tokens }, now);
        allowed
    }
}
