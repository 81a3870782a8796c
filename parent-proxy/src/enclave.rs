use transport::{Endpoint, Peer};

/// Who may use what is meant for the enclave. Where the enclave is on vsock, its context id alone; elsewhere the socket's
/// permissions decide. A context id is no identity: this keeps other virtual machines out, it does not authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EnclavePeer(Option<u32>);

impl EnclavePeer {
    pub(crate) const fn of(enclave: &Endpoint) -> Self {
        match enclave {
            Endpoint::Vsock { cid, .. } => Self(Some(*cid)),
            _ => Self(None),
        }
    }

    pub(crate) const fn admits(self, peer: Peer) -> bool {
        match (self.0, peer) {
            (Some(expected), Peer::Vsock { cid, .. }) => expected == cid,
            (Some(_), Peer::Unknown) => false,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_context_is_kept_out() {
        let peer = EnclavePeer::of(&"vsock:16:5000".parse().unwrap());
        assert!(peer.admits(Peer::Vsock { cid: 16, port: 900 }));
        assert!(!peer.admits(Peer::Vsock { cid: 17, port: 900 }));
        assert!(!peer.admits(Peer::Unknown));
        assert!(EnclavePeer::of(&"unix:/e".parse().unwrap()).admits(Peer::Unix));
    }
}
