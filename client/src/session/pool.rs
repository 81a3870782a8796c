use std::sync::Mutex;

use super::{
    connection::{Attested, Connection},
    tls::ServerKey,
};

/// Connections that wait for their next request.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Connection<Attested>>>,
}

/// A transcoder works on a few segments at a time; more idle connections than that only cost the enclave memory.
const IDLE_LIMIT: usize = 16;

impl Pool {
    /// The connection that was used last, if it is still open and leads to `key`. Those that lead elsewhere are dropped.
    pub(super) fn take(&self, key: &ServerKey) -> Option<Connection<Attested>> {
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if connection.is_open() && connection.attestation().key() == key {
                return Some(connection);
            }
        }
        None
    }

    pub(super) fn put(&self, connection: Connection<Attested>) {
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if connection.is_open() && idle.len() < IDLE_LIMIT {
            idle.push(connection);
        }
    }
}
