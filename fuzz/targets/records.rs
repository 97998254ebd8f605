//! Fuzzes the contents of records' slots, sealed and not.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_sync_model::fuzz::records(bytes));
