//! What an enclave image's first process does besides the service, because nobody else is there to do it.
//!
//! | module | what it is |
//! |---|---|
//! | [`mounts`] | the file systems of the kernel |
//! | [`modules`] | the image's kernel modules, in the image's order |
//! | [`loopback`] | the one network interface that an enclave has |
//! | [`randomness`] | no start unless the NSM's generator feeds the kernel's |
//! | [`launcher`] | telling who launched the enclave that it runs |
//! | [`reaper`] | children that nobody waits for |
//! | [`power`] | the end: last words, and the machine goes with the process |
//! | [`memory`] | how much of the machine is in use |
//!
//! Everything here is decided by the image, so all of it is measured. No `unsafe`: the system calls are those of `rustix`.

pub mod launcher;
pub mod loopback;
pub mod memory;
pub mod modules;
pub mod mounts;
pub mod power;
pub mod randomness;
pub mod reaper;

use std::io;

use thiserror::Error;

/// Why the machine is not fit for the service.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MachineError {
    /// A file system of the kernel is missing.
    #[error("{what} cannot be mounted: {source}")]
    Mount {
        /// Where it belongs.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A module of the image does not load, or the folder cannot be read.
    #[error("kernel module {name} cannot be loaded: {source}")]
    Module {
        /// Its file name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Loopback stays down.
    #[error("the loopback interface cannot be brought up: {0}")]
    Loopback(io::Error),
    /// The NSM has no device file, a while after the modules were loaded.
    #[error("/dev/nsm does not appear: the image lacks the NSM's driver or a bus that it needs")]
    NoNsm,
    /// The kernel's random numbers come from elsewhere.
    #[error("the NSM's generator does not feed the kernel's: {0}")]
    Randomness(String),
}

/// Whether this process is the first one, so that nobody else prepares and ends the machine.
pub fn is_first_process() -> bool {
    std::process::id() == 1
}

/// Makes a machine of what the kernel started: file systems, modules, loopback.
///
/// # Errors
/// [`MachineError`]: nothing can be served then.
pub fn prepare() -> Result<(), MachineError> {
    mounts::mount_all()?;
    modules::load_all(modules::FOLDER.as_ref())?;
    loopback::bring_up().map_err(MachineError::Loopback)
}
