use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use transport::Peer;

/// How many connections each IP address has.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<HashMap<IpAddr, usize>>);

/// One connection of a client; dropping it takes it off the count.
#[derive(Debug)]
pub(super) struct Place {
    address: Option<IpAddr>,
    clients: Arc<Clients>,
}

impl Clients {
    /// Counts a connection, or gives `None` where its address has `limit` already. Peers without an address are on this
    /// machine and count for nobody.
    pub(super) fn admit(self: &Arc<Self>, peer: Peer, limit: Option<NonZeroUsize>) -> Option<Place> {
        let address = match peer {
            Peer::Tcp(address) => Some(address.ip().to_canonical()),
            _ => None,
        };
        if let Some(address) = address {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_insert(0);
            if limit.is_some_and(|limit| *count >= limit.get()) {
                return None;
            }
            *count += 1;
        }
        Some(Place { address, clients: Arc::clone(self) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let clients = Arc::new(Clients::default());
        let peer = |text: &str| Peer::Tcp(text.parse().unwrap());
        let first = clients.admit(peer("192.0.2.1:1"), NonZeroUsize::new(1));
        assert!(first.is_some());
        assert!(clients.admit(peer("192.0.2.1:2"), NonZeroUsize::new(1)).is_none());
        assert!(
            clients.admit(peer("[::ffff:192.0.2.1]:2"), NonZeroUsize::new(1)).is_none(),
            "the same address in another form"
        );
        assert!(clients.admit(peer("192.0.2.2:1"), NonZeroUsize::new(1)).is_some());
        assert!(clients.admit(Peer::Unix, NonZeroUsize::new(1)).is_some());
        drop(first);
        assert!(clients.admit(peer("192.0.2.1:3"), NonZeroUsize::new(1)).is_some());
        assert!(clients.0.lock().unwrap().is_empty());
    }
}
