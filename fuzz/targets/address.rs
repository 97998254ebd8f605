//! Fuzzes the parsing of members' addresses.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larder_net_iroh::fuzz::address(bytes));
