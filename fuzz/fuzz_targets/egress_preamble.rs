#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| testkit::fuzzing::run("egress_preamble", input));
