//! Addresses of members.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_net_iroh::fuzz::address(bytes));
