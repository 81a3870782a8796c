//! The command line `confidential`.

use std::{alloc::System, process::ExitCode};

use zeroizing_alloc::ZeroAlloc;

/// What is given back is wiped: keys come in answers, of which TLS and HTTP keep copies that they do not wipe themselves.
#[global_allocator]
static MEMORY: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    client::cli::run(std::env::args_os()).into()
}
