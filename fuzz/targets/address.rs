//! Addresses of members.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| net_iroh::fuzz::address(bytes));
