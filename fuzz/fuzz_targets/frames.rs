#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stead::network::fuzz::frames(data));
