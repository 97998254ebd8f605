//! Fuzzes the messages of peers on the stream of a group.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_sync::fuzz::message(bytes));
