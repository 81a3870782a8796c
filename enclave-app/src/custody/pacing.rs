use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use transcode_confidential::ids::KeyId;

use crate::lock::{Mutex, PoisonError};

/// Rotations that the enclave begins by itself at the same time: clients have the rest of KMS's attention.
const AT_ONCE: usize = 4;
/// Pauses after a failure: the first and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Paces the rotations that are nobody's request: few at a time, and ever rarer where they fail, since each attempt may
/// cost a call to KMS and an event.
#[derive(Clone)]
pub(super) struct Rotations {
    turns: Arc<Semaphore>,
    failing: Arc<Mutex<HashMap<KeyId, Failing>>>,
}

struct Failing {
    not_before: Instant,
    pause: Duration,
}

/// A turn to rotate one key.
pub(super) struct Turn {
    rotations: Rotations,
    id: KeyId,
    _permit: OwnedSemaphorePermit,
}

impl Rotations {
    pub(super) fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), failing: Arc::default() }
    }

    /// A turn, where there is one now and the key is not to be left alone for a while.
    pub(super) fn begin(&self, id: &KeyId) -> Option<Turn> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.get(id).is_some_and(|failing| Instant::now() < failing.not_before) {
            return None;
        }
        let permit = Arc::clone(&self.turns).try_acquire_owned().ok()?;
        Some(Turn { rotations: self.clone(), id: id.clone(), _permit: permit })
    }
}

impl Turn {
    pub(super) fn succeeded(self) {
        self.rotations.failing.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }

    /// Gives the pause before the next turn of the same key.
    pub(super) fn failed(self) -> Duration {
        let mut failing = self.rotations.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = failing.get(&self.id).map_or(PAUSE.0, |failing| (failing.pause * 2).min(PAUSE.1));
        failing.insert(self.id.clone(), Failing { not_before: Instant::now() + pause, pause });
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_that_fails_to_rotate_is_tried_ever_more_rarely() {
        let (rotations, id) = (Rotations::new(), "film-1".parse().unwrap());
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let pause = rotations.begin(&id).unwrap().failed();
            assert!(rotations.begin(&id).is_none());
            tokio::time::advance(pause).await;
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        rotations.begin(&id).unwrap().succeeded();
        assert_eq!(rotations.begin(&id).unwrap().failed(), PAUSE.0);
    }

    #[tokio::test]
    async fn few_rotations_run_at_the_same_time() {
        let rotations = Rotations::new();
        let key = |n: usize| format!("film-{n}").parse().unwrap();
        let turns: Vec<_> = (0..AT_ONCE).map(|n| rotations.begin(&key(n)).unwrap()).collect();
        assert!(rotations.begin(&key(9)).is_none());
        turns.into_iter().for_each(Turn::succeeded);
        assert!(rotations.begin(&key(9)).is_some());
    }
}
