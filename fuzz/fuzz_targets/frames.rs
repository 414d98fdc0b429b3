#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lastpong::fuzz::frames(data));
