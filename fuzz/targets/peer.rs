//! Fuzzes the requests of peers to a store, and their answers to it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_store_iroh::fuzz::peer(bytes));
