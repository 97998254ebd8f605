//! What is in the slots of records, sealed and not.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sync_model::fuzz::records(bytes));
