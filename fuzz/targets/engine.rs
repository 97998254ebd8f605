//! Fuzzes the decoding of the engine's stored data.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_store_engine::fuzz::stored(bytes));
