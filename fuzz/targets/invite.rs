//! Fuzzes the decoding of invites.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_sync_model::fuzz::invite(bytes));
