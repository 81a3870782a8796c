//! The locks around whatever is decided upon. They are named here, once, so that tests can compile the very sources of the
//! critical sections against locks whose every turn a scheduler chooses (`tests/model`).

pub use std::sync::{Mutex, MutexGuard, PoisonError};
