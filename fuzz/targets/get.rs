//! What peers ask for.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sync::fuzz::get(bytes));
