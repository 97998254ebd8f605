//! Fuzzes hellos and the answers to them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_sync::fuzz::proof(bytes));
