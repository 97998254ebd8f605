//! Fuzzes operations of groups and what a set of them means.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_sync_model::fuzz::membership(bytes));
