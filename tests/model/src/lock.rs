//! As [`enclave_app::lock`]: taking and giving back a lock are turns of the scheduler.

pub use shuttle::sync::{Mutex, MutexGuard};
pub use std::sync::PoisonError;
