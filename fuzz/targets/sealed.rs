//! Fuzzes the opening of sealed files, pages and values.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_sync_model::fuzz::sealed(bytes));
