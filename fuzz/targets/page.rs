//! Fuzzes the decoding of pages of trees.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_sync_model::fuzz::page(bytes));
