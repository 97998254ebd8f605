//! Fuzzes the decoding of what the engine stores.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_store_engine::fuzz::stored(bytes));
