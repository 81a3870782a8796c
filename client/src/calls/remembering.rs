use std::sync::{Mutex, PoisonError};

use transcode_confidential::audit::Seal;

use super::log::blocking;
use crate::log_memory::{LogError, LogMemory};

/// Seals of verified receipts on their way into the memory. A write takes two syncs of the disk, so whoever comes while one
/// is under way goes with the next, of which only the newest seal is written: it stands for those before it.
#[derive(Default)]
pub(super) struct Remembering {
    newest: Mutex<Option<Seal>>,
    written: tokio::sync::Mutex<Option<Seal>>,
}

impl Remembering {
    /// Returns when this seal, or one that stands for it, is remembered durably.
    pub(super) async fn remember(&self, memory: &LogMemory, seal: Seal) -> Result<(), LogError> {
        self.offer(seal);
        let mut written = self.written.lock().await;
        if written.is_some_and(|written| stands_for(&written, &seal)) {
            return Ok(());
        }
        let newest = *self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let next = newest.filter(|newest| stands_for(newest, &seal)).unwrap_or(seal);
        let memory = memory.clone();
        blocking(move || memory.advance_by(&next)).await?;
        *written = Some(next);
        Ok(())
    }

    fn offer(&self, seal: Seal) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.is_none_or(|newest| !stands_for(&newest, &seal)) {
            *newest = Some(seal);
        }
    }
}

/// Whether remembering the one remembers all that the other says: one enclave's seals are one line.
fn stands_for(one: &Seal, other: &Seal) -> bool {
    (one.log_id, one.state.epoch) == (other.log_id, other.state.epoch)
        && (one.state.size > other.state.size || one.state == other.state)
}
