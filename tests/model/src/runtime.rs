//! What the enclave's sources get for `tokio`.

pub mod sync;
pub mod task;
pub mod time;

pub use task::spawn;
