//! `cargo demo`: the whole main job on one machine, step by step.

use std::process::ExitCode;

fn main() -> ExitCode {
    testkit::demo::main()
}
