//! What peers ask a store for, and what they answer it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| store_iroh::fuzz::peer(bytes));
