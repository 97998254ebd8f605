//! Fuzzes reading the log of a store on disk.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_store_redb::fuzz::log(bytes));
