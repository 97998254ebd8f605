//! Fuzzes the requests of peers.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_sync::fuzz::get(bytes));
