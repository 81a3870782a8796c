//! The proxy from outside: its store on a disk that fails, its services over sockets, its binary as a process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that fails should fail loudly, one that counts should say the count, and may be told how often"
)]

#[path = "suite/disk.rs"]
mod disk;
#[path = "suite/enclave.rs"]
mod enclave;
#[path = "suite/oracle.rs"]
mod oracle;
#[path = "suite/world.rs"]
mod world;

#[path = "suite/aging.rs"]
mod aging;
#[path = "suite/credentials.rs"]
mod credentials;
#[path = "suite/egress.rs"]
mod egress;
#[path = "suite/faults.rs"]
mod faults;
#[path = "suite/full_disk.rs"]
mod full_disk;
#[path = "suite/host.rs"]
mod host;
#[path = "suite/process.rs"]
mod process;
#[path = "suite/relay.rs"]
mod relay;
#[path = "suite/store.rs"]
mod store;
