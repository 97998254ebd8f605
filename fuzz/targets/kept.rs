//! Fuzzes the decoding of what a device remembers of its groups.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_sync::fuzz::kept(bytes));
