//! The boot test's program; `eif/boot-test/run` calls it.

use std::process::ExitCode;

fn main() -> ExitCode {
    testkit::boot_test::main()
}
