//! Fuzzes the decoding of the data that a device stores about its groups.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_sync::fuzz::kept(bytes));
