#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| testkit::fuzzing::run("packed_segment", input));
