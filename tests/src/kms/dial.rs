use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use enclave_app::kms::{ByteStream, Dial, DialError};
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

/// Connects to one address whatever host is asked for, and counts.
#[derive(Debug)]
pub struct CountingDialer {
    address: SocketAddr,
    dials: AtomicUsize,
    targets: Mutex<Vec<String>>,
}

impl CountingDialer {
    /// To that address.
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, dials: AtomicUsize::new(0), targets: Mutex::new(Vec::new()) }
    }

    /// Connections so far.
    pub fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    /// What was asked for, as `host:port`, in order.
    pub fn targets(&self) -> Vec<String> {
        self.targets.lock().expect("no test panics while it holds this").clone()
    }
}

impl Dial for CountingDialer {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Result<ByteStream, DialError>> {
        Box::pin(async move {
            self.dials.fetch_add(1, Ordering::SeqCst);
            self.targets.lock().expect("no test panics while it holds this").push(format!("{host}:{port}"));
            TcpStream::connect(self.address).await.map(ByteStream::new).map_err(DialError::Egress)
        })
    }
}
