//! Connections of whoever has not shown a certificate: few, and the newest of them.
//!
//! Anybody can open connections and say nothing. Where there are too many of those, the one that was opened first makes room: it
//! had the most time. So a crowd that only waits keeps nobody out who has something to say.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// The connections that nobody has shown a certificate on.
#[derive(Debug)]
pub(super) struct Unproven {
    limit: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// By age.
    connections: BTreeMap<u64, CancellationToken>,
}

/// One of them; dropping it says that it is closed, or unproven no more.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Unproven>,
    number: u64,
    given_up: CancellationToken,
}

impl Unproven {
    /// At most `limit` at the same time.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), open: Mutex::default() })
    }

    /// A place for a new connection; the oldest goes where there is none left.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let given_up = CancellationToken::new();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.connections.len() >= self.limit
            && let Some((_, oldest)) = open.connections.pop_first()
        {
            oldest.cancel();
        }
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, given_up.clone());
        drop(open);
        Place { of: Arc::clone(self), number, given_up }
    }
}

impl Place {
    /// Ends when the connection must make room.
    pub(super) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.of.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.connections.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_makes_room_and_who_has_left_counts_no_more() {
        let unproven = Unproven::new(3);
        let mut places: Vec<_> = (0..3).map(|_| unproven.enter()).collect();
        drop(places.remove(1));
        places.push(unproven.enter());
        assert!(places.iter().all(|place| !place.given_up.is_cancelled()));
        let newest = unproven.enter();
        places[0].given_up().await;
        assert!(!places[1].given_up.is_cancelled() && !newest.given_up.is_cancelled());
        assert_eq!(unproven.open.lock().unwrap().connections.len(), 3);
    }
}
